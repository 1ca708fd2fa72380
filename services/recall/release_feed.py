"""Tails `model-releases` and keeps the newest decision about the arm whose vectors are served.

The topic is compacted with the arm as key: reading it from the beginning gives the present state, and
then every change. Undecodable records are counted and passed over, since release writes the whole
decision again.
"""

from __future__ import annotations

import asyncio

from google.protobuf.message import DecodeError

from rec.model.v1.model_pb2 import Release
from services.contract import topics
from services.recall import metrics
from services.recall.tail import Tail
from services.runtime.kafka_consumer import LogReader, TopicPartition

PARTITION = TopicPartition(topics.MODEL_RELEASES.name, 0)
_POLL_MS = 500
_MAX_RECORDS = 500


class ReleaseFeed:
    """``newest`` is None before the first decision about the arm; ``changed`` is set with each new one."""

    def __init__(self, reader: LogReader, arm: str) -> None:
        self._tail = Tail(reader, PARTITION, poll_ms=_POLL_MS, max_records=_MAX_RECORDS)
        self._arm = arm
        self.newest: Release | None = None
        self.changed = asyncio.Event()

    async def run(self) -> None:
        """Reads until cancelled; needs a started reader."""
        async for records in self._tail.batches():
            for record in records:
                self.take(record.key, record.value)

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """One record of the topic."""
        if key != self._arm.encode() or value is None:
            return
        try:
            release = Release.FromString(value)
        except DecodeError as error:
            metrics.MALFORMED_RELEASES.inc()
            metrics.log.error("release does not decode", arm=self._arm, error=repr(error))
            return
        if self.newest is None or release.revision >= self.newest.revision:
            self.newest = release
            self.changed.set()
