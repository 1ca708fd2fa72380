"""Finds single records in the loop's topics: reads a partition from a moment on, and waits for what comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from services.contract.errors import Unavailable
from services.contract.topics import Topic
from services.runtime.kafka_consumer import ConsumerRecord, LogReader, TopicPartition
from services.runtime.settings import KafkaSettings

Found = TypeVar("Found")
_POLL_MS = 100
_SILENCE_S = 30.0
# Behind the present: a record gets its time before it stands in the log.
SLACK_US = 2_000_000


class TopicLog:
    """``start``, then one search at a time; ``stop``."""

    def __init__(self, kafka: KafkaSettings) -> None:
        # A person waits for each of these records.
        self._reader = LogReader(kafka.model_copy(update={"fetch_min_bytes": 1}), "loadgen-trace")

    async def start(self) -> None:
        """Connects; Unavailable."""
        await self._reader.start()

    async def stop(self) -> None:
        """Closes."""
        await self._reader.stop()

    async def first(
        self,
        topic: Topic,
        partition: int | None,
        since_us: int,
        take: Callable[[ConsumerRecord], Found | None],
        patience_s: float = 0.0,
    ) -> Found | None:
        """What ``take`` makes of the first record that it wants, of a partition (None: of all, in no order
        between them). Records from ``since_us`` on; what comes within ``patience_s`` from now is awaited.
        Unavailable: they cannot be read to their end."""
        chosen = range(topic.partitions) if partition is None else (partition,)
        partitions = [TopicPartition(topic.name, number) for number in chosen]
        heard_s = time.monotonic()
        deadline = heard_s + patience_s
        ends = await self._reader.end_offsets(partitions)
        self._reader.assign(await self._reader.offsets_since(partitions, since_us))
        while True:
            found_now = await self._reader.poll(_POLL_MS)
            now_s = time.monotonic()
            heard_s = now_s if found_now else heard_s
            for records in found_now.values():
                for record in records:
                    if (found := take(record)) is not None:
                        return found
            if now_s >= deadline and await self._read_to(ends):
                return None
            if now_s >= max(deadline, heard_s + _SILENCE_S):
                raise Unavailable(f"{topic.name} is not readable to its end")
            await asyncio.sleep(0)

    async def _read_to(self, ends: dict[TopicPartition, int]) -> bool:
        return all([await self._reader.position(where) >= end for where, end in ends.items()])
