"""Reads one partition from an offset to the end that it has now."""

from __future__ import annotations

from collections.abc import AsyncIterator

from services.contract.errors import Unavailable
from services.runtime.kafka_consumer import ConsumerRecord, LogReader, TopicPartition

_POLL_MS = 200
_MAX_EMPTY = 300


async def read_to(
    reader: LogReader, where: TopicPartition, offset: int, *, max_records: int = 200
) -> AsyncIterator[ConsumerRecord]:
    """Every committed record from ``offset`` to the end at the call, in order. Takes over the reader's
    assignment.

    Unavailable when a minute passes without progress."""
    end = (await reader.end_offsets([where]))[where]
    reader.assign({where: offset})
    empty = 0
    while await reader.position(where) < end:
        found = await reader.poll(timeout_ms=_POLL_MS, max_records=max_records)
        empty = 0 if found else empty + 1
        if empty >= _MAX_EMPTY:
            raise Unavailable(f"{where.topic}/{where.partition} is not readable up to {end}")
        for record in found.get(where, []):
            yield record
