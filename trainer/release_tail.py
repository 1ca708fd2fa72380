"""model-releases as the trainer follows it: every record to the lineages, which settle behind each poll."""

from __future__ import annotations

import asyncio

from google.protobuf.message import DecodeError

from rec.model.v1 import model_pb2
from services.contract import topics
from services.contract.errors import Unavailable
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.telemetry import counter, get_logger
from trainer.lineages import Lineages

log = get_logger(__name__)
_WHERE = TopicPartition(topics.MODEL_RELEASES.name, 0)
_POLL_MS = 200
_RETRY_S = 0.5


class ReleaseTail:
    """Reads from the beginning (the topic is compacted: the present wishes), then tails until cancelled."""

    def __init__(self, reader: LogReader, lineages: Lineages) -> None:
        self._reader = reader
        self._lineages = lineages
        self._bad = counter("trainer_bad_releases", "Records of model-releases that do not decode.")

    async def run(self) -> None:
        """Fails when the own lineage has failed; training goes on while Kafka is away."""
        begin = (await self._reader.beginning_offsets([_WHERE]))[_WHERE]
        self._reader.assign({_WHERE: begin})
        while True:
            try:
                found = await self._reader.poll(timeout_ms=_POLL_MS)
            except Unavailable as error:
                log.warning("releases not readable", error=str(error))
                await asyncio.sleep(_RETRY_S)
                found = {}
            for record in found.get(_WHERE, []):
                if record.value is not None:
                    self._take(record.value)
            # An old wish must not be acted on while a newer one stands behind it.
            if not found or await self._at_end():
                await self._lineages.settle()

    async def _at_end(self) -> bool:
        """Whether all that stands there now has been polled: a rollback does not wait for another poll."""
        try:
            end = (await self._reader.end_offsets([_WHERE]))[_WHERE]
        except Unavailable:
            return False
        return await self._reader.position(_WHERE) >= end

    def _take(self, value: bytes) -> None:
        try:
            release = model_pb2.Release.FromString(value)
        except DecodeError as error:
            self._bad.inc()
            log.error("release does not decode", error=repr(error))
        else:
            self._lineages.take(release)
