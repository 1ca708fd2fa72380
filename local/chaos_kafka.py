"""Kafka as the chaos run sees it: whole topics read back, and the moment at which a transaction is open."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from local.chaos_check import LogRecord
from services.contract import topics


class Tail:
    """Follows a topic uncommitted: a record that arrives is of a transaction that is about to commit."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._strike: Callable[[int], None] | None = None
        self._struck = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="tail", daemon=True)
        self._thread.start()

    def on_next(self, strike: Callable[[int], None], timeout_s: float) -> bool:
        """Calls ``strike`` with the partition of the next record, on the thread that reads it; whether one
        came."""
        self._struck.clear()
        self._strike = strike
        came = self._struck.wait(timeout_s)
        self._strike = None
        return came

    def close(self) -> None:
        """Ends the reading."""
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        while not self._stop.is_set():
            consumer = AIOKafkaConsumer(self._topic, bootstrap_servers=self._bootstrap)
            try:
                await consumer.start()
                while not self._stop.is_set():
                    for where in await consumer.getmany(timeout_ms=100):
                        self._tell(where.partition)
            except (KafkaError, OSError):
                await asyncio.sleep(0.5)
            finally:
                await consumer.stop()

    def _tell(self, partition: int) -> None:
        strike, self._strike = self._strike, None
        if strike is not None:
            strike(partition)
            self._struck.set()


def read(bootstrap: str, wanted: Iterable[topics.Topic], *, committed: bool) -> list[LogRecord]:
    """Everything on some topics; ``committed`` leaves out what stands in transactions that are not."""
    return asyncio.run(_read(bootstrap, wanted, committed))


async def _read(bootstrap: str, wanted: Iterable[topics.Topic], committed: bool) -> list[LogRecord]:
    isolation = "read_committed" if committed else "read_uncommitted"
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level=isolation)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic.name, p) for topic in wanted for p in range(topic.partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        # Not seek_to_beginning: after a restart of the broker the client takes the end for the beginning.
        for where, offset in (await consumer.beginning_offsets(partitions)).items():
            consumer.seek(where, offset)
        records: list[LogRecord] = []
        while any([await consumer.position(where) < ends[where] for where in partitions]):
            for batch in (await consumer.getmany(timeout_ms=500, max_records=5_000)).values():
                records += [
                    LogRecord(r.topic, r.partition, r.offset, r.timestamp, r.value or b"", r.headers)
                    for r in batch
                ]
        return records
    finally:
        await consumer.stop()
