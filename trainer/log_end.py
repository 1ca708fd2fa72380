"""Reads one partition from an offset to the end that it has now, or to a mark."""

from __future__ import annotations

from collections.abc import AsyncIterator

from services.contract.errors import Unavailable
from services.runtime.kafka_consumer import ConsumerRecord, LogReader, TopicPartition

_POLL_MS = 200
_MAX_EMPTY = 300


async def read_to(
    reader: LogReader,
    where: TopicPartition,
    offset: int,
    *,
    end: int | None = None,
    max_records: int = 200,
) -> AsyncIterator[ConsumerRecord]:
    """Every committed record from ``offset`` to ``end``, in order; None = the end that the broker names now,
    which may be too low when the broker has just come back. Takes over the reader's assignment.

    Unavailable when a minute passes without progress."""
    if end is None:
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
