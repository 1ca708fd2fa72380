"""model-releases as this replica sees it: read to its end at the start, then tailed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from google.protobuf.message import DecodeError

from rec.model.v1 import model_pb2
from services.contract import topics
from services.contract.errors import Unavailable
from services.ranking.metrics import Metrics
from services.runtime.kafka_consumer import ConsumerRecord, LogReader, TopicPartition
from services.runtime.settings import KafkaSettings
from services.runtime.telemetry import get_logger

log = get_logger(__name__)
_WHERE = TopicPartition(topics.MODEL_RELEASES.name, 0)
_RETRY_S = 0.5
OnBad = Callable[[ConsumerRecord, str], None]


class ReleaseTail:
    """Gives every release, in order, to ``take``; records that do not decode to ``on_bad``."""

    def __init__(
        self, kafka: KafkaSettings, client_id: str, take: Callable[[model_pb2.Release], None], on_bad: OnBad
    ) -> None:
        self._reader = LogReader(kafka, client_id, slow=True)
        self._take = take
        self._on_bad = on_bad
        self._metrics = Metrics()

    async def start(self) -> None:
        """Reads to the present end; Unavailable when Kafka is not there."""
        await self._reader.start()
        begin = (await self._reader.beginning_offsets([_WHERE]))[_WHERE]
        end = (await self._reader.end_offsets([_WHERE]))[_WHERE]
        self._reader.assign({_WHERE: begin})
        newest: dict[str, model_pb2.Release] = {}
        while await self._reader.position(_WHERE) < end:
            for release in self._decoded(await self._reader.poll()):
                newest[release.arm] = release
        # Only the newest wish of each arm: history must not be loaded base by base.
        for release in newest.values():
            self._take(release)
        if not newest:
            log.warning("no model: release has registered none; NOT_SERVING until it has")

    async def run(self) -> None:
        """Tails until cancelled; the arms go on serving while Kafka is away."""
        while True:
            try:
                records = await self._reader.poll(timeout_ms=500)
            except Unavailable as error:
                log.warning("releases not readable", error=str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            for release in self._decoded(records):
                self._take(release)

    async def stop(self) -> None:
        """Closes."""
        await self._reader.stop()

    def _decoded(self, records: dict[TopicPartition, list[ConsumerRecord]]) -> list[model_pb2.Release]:
        found = []
        for record in records.get(_WHERE, ()):
            if record.value is None:
                continue
            try:
                release = model_pb2.Release.FromString(record.value)
            except DecodeError:
                release = model_pb2.Release()
            if not release.arm or release.arm.encode() != record.key:
                self._metrics.bad_releases.inc()
                self._on_bad(record, "undecodable")
            else:
                found.append(release)
        return found
