"""Where a follower reads its deltas: the one partition of its lineage, by offset, committed records only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from services.contract import topics
from services.contract.trace_ids import SpanRef, span_of
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.settings import KafkaSettings

POLL_MS = 100
# Deltas are up to 8 MB: few are held at once.
POLL_RECORDS = 16


@dataclass(frozen=True)
class FeedRecord:
    """A record of model-deltas."""

    offset: int
    value: bytes
    # When Kafka appended it; 0 = not told.
    appended_us: int = 0
    # That published it; None = it is not traced.
    span: SpanRef | None = None


class DeltaFeed(Protocol):
    """One partition of model-deltas."""

    async def start(self, partition: int, offset: int) -> None:
        """Connects and reads from ``offset``; Unavailable."""

    async def poll(self) -> list[FeedRecord]:
        """The next records in order, after a short wait none. Unavailable; NotFound when the log is
        truncated."""

    def seek(self, offset: int) -> None:
        """Reads on from ``offset``."""

    async def at_end(self) -> bool:
        """Whether everything committed until now has been polled."""

    async def stop(self) -> None:
        """Closes."""


class KafkaDeltaFeed:
    """The real one."""

    def __init__(self, kafka: KafkaSettings, client_id: str) -> None:
        self._reader = LogReader(kafka, client_id, slow=True)
        self._where = TopicPartition(topics.MODEL_DELTAS.name, 0)

    async def start(self, partition: int, offset: int) -> None:
        """See DeltaFeed."""
        self._where = TopicPartition(topics.MODEL_DELTAS.name, partition)
        await self._reader.start()
        self._reader.assign({self._where: offset})

    async def poll(self) -> list[FeedRecord]:
        """See DeltaFeed."""
        found = await self._reader.poll(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
        # A record without value is the mark of a trainer that has started.
        records = [r for r in found.get(self._where, ()) if r.value is not None]
        return [FeedRecord(r.offset, r.value, r.timestamp * 1000, span_of(r.headers)) for r in records]

    def seek(self, offset: int) -> None:
        """See DeltaFeed."""
        self._reader.seek(self._where, offset)

    async def at_end(self) -> bool:
        """See DeltaFeed."""
        end = (await self._reader.end_offsets([self._where]))[self._where]
        return await self._reader.position(self._where) >= end

    async def stop(self) -> None:
        """See DeltaFeed."""
        await self._reader.stop()
