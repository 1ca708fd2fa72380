"""Kafka as the chaos run sees it: whole topics read back, and the moment at which a transaction is open."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Protocol

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from local.chaos_check import LogRecord
from services.contract import topics


class Aim(Protocol):
    """What is done to whoever writes a record whose transaction may still be open."""

    def freeze(self, partition: int) -> None:
        """Holds the writer of this partition, so that the transaction stays as it is."""

    def decide(self, is_open: bool) -> None:
        """The transaction is open: strike; else it had just committed: let the writer go on."""


class Tail:
    """Follows a topic uncommitted: a record that arrives is of a transaction that is about to commit."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._aim: Aim | None = None
        self._struck = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="tail", daemon=True)
        self._thread.start()

    def in_transaction(self, aim: Aim, timeout_s: float) -> bool:
        """Takes aim, on the thread that reads, at each record that comes until one's transaction is open;
        whether one was."""
        self._struck.clear()
        self._aim = aim
        came = self._struck.wait(timeout_s)
        self._aim = None
        return came

    def close(self) -> None:
        """Ends the reading."""
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        while not self._stop.is_set():
            consumer = AIOKafkaConsumer(self._topic, bootstrap_servers=self._bootstrap)
            # Asked where the committed part of a partition ends.
            committed = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, isolation_level="read_committed")
            try:
                await consumer.start()
                await committed.start()
                while not self._stop.is_set():
                    for where, records in (await consumer.getmany(timeout_ms=100)).items():
                        await self._take(committed, where, records[-1].offset)
            except (KafkaError, OSError):
                await asyncio.sleep(0.5)
            finally:
                await consumer.stop()
                await committed.stop()

    async def _take(self, committed: AIOKafkaConsumer, where: TopicPartition, offset: int) -> None:
        aim = self._aim
        if aim is None:
            return
        aim.freeze(where.partition)
        is_open = False
        try:
            is_open = (await committed.end_offsets([where]))[where] <= offset
        finally:
            aim.decide(is_open)
        if is_open:
            self._aim = None
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
                    LogRecord(
                        r.topic,
                        r.partition,
                        r.offset,
                        r.timestamp,
                        r.value or b"",
                        r.headers,
                        len(r.key or b""),
                    )
                    for r in batch
                ]
        return records
    finally:
        await consumer.stop()
