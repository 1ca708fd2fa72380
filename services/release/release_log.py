"""The log that is release's state: read to its end, appended in transactions.

Order of an opening: fence (an older owner can write no more), then read, then decide. A write whose outcome
is unknown closes the log; the next call opens it again and so learns what stands in it.
"""

from __future__ import annotations

import asyncio

from google.protobuf.message import DecodeError

from rec.model.v1 import model_pb2
from services.contract import topics
from services.contract.errors import LoopError, Unavailable
from services.release.decision import Decision
from services.release.registry import Registry
from services.runtime.kafka_consumer import ConsumerRecord, LogReader, TopicPartition
from services.runtime.kafka_transactions import TransactionalProducer
from services.runtime.settings import KafkaSettings
from services.runtime.telemetry import counter, get_logger

log = get_logger(__name__)
_RELEASES = TopicPartition(topics.MODEL_RELEASES.name, 0)
# Key of the tombstone that each opening writes; followers pass over tombstones.
END_MARK = b"opened"


class ReleaseLog:
    """Owns the transactional producer and the registry that mirrors the log."""

    def __init__(
        self, kafka: KafkaSettings, transactional_id: str, read_timeout_s: float, write_timeout_s: float
    ) -> None:
        self._kafka = kafka
        self._id = transactional_id
        self._read_timeout_s = read_timeout_s
        self._write_timeout_s = write_timeout_s
        self._producer: TransactionalProducer | None = None
        self._registry = Registry()
        self._opening = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._malformed = counter(
            "release_malformed_records", "Records of model-releases that do not decode."
        )
        self._reopened = counter("release_log_openings", "Fencing and reading the log to its end.")

    async def opened(self) -> Registry:
        """The state, after opening the log when it is not open. Unavailable, Conflict (fenced).

        One opener at a time: a second one of this process would fence the first."""
        async with self._opening:
            return await self._opened()

    async def _opened(self) -> Registry:
        if self._producer is None:
            producer = TransactionalProducer(self._kafka, self._id)
            await producer.start()
            try:
                self._registry = await self._read(await self._mark(producer))
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
            self._reopened.inc()
            log.info(
                "log read", revision=self._registry.revision, generations=len(self._registry.generations)
            )
        return self._registry

    async def delta_end(self, partition: int) -> int:
        """End offset of a partition of model-deltas now."""
        where = TopicPartition(topics.MODEL_DELTAS.name, partition)
        reader = LogReader(self._kafka, f"{self._id}-offsets")
        await reader.start()
        try:
            return (await reader.end_offsets([where]))[where]
        finally:
            await reader.stop()

    async def write(self, decision: Decision) -> None:
        """Writes records and events in one transaction; takes them in once Kafka has acknowledged both."""
        if not decision.records:
            return
        if self._producer is None:
            raise Unavailable("the release log is not open")
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await self._commit(self._producer, decision)
        except (TimeoutError, LoopError, asyncio.CancelledError) as error:
            # Closing may wait for a dead broker. The next owner of the id fences this one, closed or not.
            self._drop()
            if isinstance(error, TimeoutError):
                raise Unavailable("Kafka has not acknowledged the decision in time") from error
            raise
        self._registry.take(decision.records)

    async def _commit(self, producer: TransactionalProducer, decision: Decision) -> None:
        await producer.begin()
        for record in decision.records:
            producer.send_nowait(
                _RELEASES.topic, record.SerializeToString(), record.arm.encode(), partition=0
            )
        for event in decision.events:
            producer.send_nowait(topics.RELEASE_EVENTS.name, event.SerializeToString(), event.arm.encode())
        await producer.commit()

    async def close(self) -> None:
        """Closes the producer; an open transaction is aborted by the next opening."""
        self._drop()
        await asyncio.gather(*self._closing)

    def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            task = asyncio.get_running_loop().create_task(producer.stop(), name="close release producer")
            self._closing.add(task)
            task.add_done_callback(self._dropped)

    def _dropped(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("producer not closed", error=repr(task.exception()))

    async def _mark(self, producer: TransactionalProducer) -> int:
        """Writes a tombstone and gives its offset: everything decided before stands below it.

        A broker that has just come back may name an end of the log that is too low; a registry read up to
        there would number generations anew.
        """
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await producer.begin()
                marked = producer.send_nowait(_RELEASES.topic, None, END_MARK, partition=0)
                await producer.commit()
        except TimeoutError as error:
            raise Unavailable("Kafka has not acknowledged the opening of the release log in time") from error
        return (await marked).offset

    async def _read(self, end: int) -> Registry:
        registry = Registry()
        reader = LogReader(self._kafka, f"{self._id}-log")
        await reader.start()
        try:
            async with asyncio.timeout(self._read_timeout_s):
                begin = (await reader.beginning_offsets([_RELEASES]))[_RELEASES]
                reader.assign({_RELEASES: begin})
                while await reader.position(_RELEASES) <= end:
                    for record in (await reader.poll(timeout_ms=100)).get(_RELEASES, ()):
                        self._fold(registry, record)
        except TimeoutError as error:
            raise Unavailable(f"{_RELEASES.topic} was not read to its end in time") from error
        finally:
            await reader.stop()
        return registry

    def _fold(self, registry: Registry, record: ConsumerRecord) -> None:
        key = (record.key or b"").decode(errors="replace")
        if record.value is None:
            registry.forget(key)
            return
        try:
            release = model_pb2.Release.FromString(record.value)
        except DecodeError:
            release = model_pb2.Release()
        if not release.arm or release.arm != key:
            self._malformed.inc()
            log.error("record of model-releases ignored", offset=record.offset, key=key)
            return
        registry.take([release])
