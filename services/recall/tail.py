"""Reads one partition from its beginning, for ever: what recall does with `catalog` and `model-releases`.

Kafka away: recall goes on with what it has; the fault is counted, logged and tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from services.contract.errors import LoopError, NotFound
from services.recall import metrics
from services.runtime.kafka_consumer import ConsumerRecord, LogReader, TopicPartition

_RETRY_S = 1.0


class Tail:
    """One partition of a compacted topic; records come again from the beginning when the log was cut."""

    def __init__(self, reader: LogReader, where: TopicPartition, *, poll_ms: int, max_records: int) -> None:
        self._reader = reader
        self._where = where
        self._poll_ms = poll_ms
        self._max_records = max_records
        self._assigned = False
        self._next_offset = 0
        self._moved = asyncio.Event()

    async def batches(self) -> AsyncIterator[list[ConsumerRecord]]:
        """Records in the order of the log; empty lists while there are none."""
        while True:
            try:
                records = await self._poll()
            except LoopError as error:
                metrics.READ_ERRORS.labels(self._where.topic).inc()
                metrics.log.error("cannot read", topic=self._where.topic, error=repr(error))
                self._assigned = self._assigned and not isinstance(error, NotFound)
                await asyncio.sleep(_RETRY_S)
                continue
            yield records
            # Only now: the batch has been taken in.
            self._next_offset = await self._reader.position(self._where)
            self._moved.set()
            # A poll that finds records need not wait: the loop must turn while a long topic is read.
            await asyncio.sleep(0)

    async def until_end(self) -> int:
        """Returns when everything that stands in the log now has been taken in; the end offset."""
        end = (await self._reader.end_offsets([self._where]))[self._where]
        while self._next_offset < end:
            self._moved.clear()
            await self._moved.wait()
        return end

    async def _poll(self) -> list[ConsumerRecord]:
        if not self._assigned:
            begin = (await self._reader.beginning_offsets([self._where]))[self._where]
            self._reader.assign({self._where: begin})
            self._assigned = True
        return (await self._reader.poll(self._poll_ms, self._max_records)).get(self._where, [])
