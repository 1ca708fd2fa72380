"""Kafka transactions: outputs and input offsets become visible together, or not at all.

One transactional id has one owner: ``start`` bumps its epoch, aborts what a dead owner left open and makes
every later call of a live one fail with Conflict (a zombie is fenced). Offsets committed through a
transaction are read with ``committed`` after ``start``: then no older owner can change them any more.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata, RecordMetadata, TopicPartition

from services.contract.errors import Conflict, InvalidInput, LoopError, Unavailable
from services.contract.topics import MAX_RECORD_BYTES
from services.runtime.kafka_connect import connected, connection_options, drop
from services.runtime.kafka_errors import loop_error
from services.runtime.kafka_outbox import Headers, Outbox, Outgoing, client_options
from services.runtime.settings import KafkaSettings
from services.runtime.telemetry import counter, get_logger, histogram

log = get_logger(__name__)


class Record(Protocol):
    """A record whose partition is known."""

    topic: str
    value: bytes
    key: bytes | None
    partition: int
    headers: list[tuple[str, bytes]] | None


_RETRY_S = 0.1
# A commit that follows another closely meets its markers being written and has to ask again: 100 ms, the
# client's default, would show in every tenth commit.
_BACKOFF_MS = 20


class TransactionalProducer:
    """``start``, then rounds of ``begin``, sends, ``send_offsets``, ``commit`` (or ``abort``); at last
    ``stop``.

    After Conflict the owner has been fenced: stop. After Unavailable from ``commit`` the outcome is
    unknown: start anew and read the committed offsets.
    """

    def __init__(self, settings: KafkaSettings, transactional_id: str) -> None:
        self._settings = settings
        self._id = transactional_id
        self._client: AIOKafkaProducer | None = None
        self._outbox = Outbox(settings, transactional_id, self._hand)
        self._futures: list[asyncio.Future[RecordMetadata]] = []
        self._pump: asyncio.Task[Any] | None = None
        self._commits = counter("kafka_transactions", "Transactions ended.", ["id", "outcome"])
        self._seconds = histogram("kafka_commit_seconds", "Duration of a commit.")

    async def start(self) -> None:
        """Connects and fences every other owner of the id."""
        options = client_options(self._settings, self._id)
        options["transactional_id"] = self._id
        # A commit waits for its records; what would gather with them meanwhile comes in the same round.
        options["linger_ms"] = 0
        options["retry_backoff_ms"] = _BACKOFF_MS
        options["transaction_timeout_ms"] = self._settings.transaction_timeout_ms
        self._client = await connected(
            self._settings, lambda: AIOKafkaProducer(**options), f"transactional id {self._id}"
        )
        self._pump = asyncio.get_running_loop().create_task(self._outbox.pump(), name=f"{self._id} pump")

    @property
    def epoch(self) -> tuple[int, int]:
        """(producer id, epoch) that the broker gave: grows with each owner."""
        manager = self._alive()._txn_manager
        return manager.producer_id, manager.producer_epoch

    @property
    def pending(self) -> int:
        """Records sent and not yet answered."""
        return self._outbox.pending

    async def begin(self) -> None:
        """Opens a transaction."""
        self._futures.clear()
        with _translated("begin"):
            await self._bounded(self._alive().begin_transaction())

    def send_nowait(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        """Queues a record of this transaction, in order; ``commit`` looks at every future, callers need
        not.
        """
        self._alive()
        future = self._outbox.put(topic, value, key, headers, partition)
        self._futures.append(future)
        return future

    async def send_all(self, records: Iterable[Record]) -> None:
        """Queues records of this transaction, in their order for each partition, as whole batches: an answer
        per batch costs a third of an answer per record. Waits while the broker is behind; ``commit`` looks at
        every answer. InvalidInput when a record is larger than any topic takes.
        """
        by_partition: defaultdict[tuple[str, int], list[Record]] = defaultdict(list)
        for record in records:
            size = len(record.value) + len(record.key or b"")
            if size > MAX_RECORD_BYTES:
                raise InvalidInput.one(
                    f"record for {record.topic}", f"{size} bytes", f"at most {MAX_RECORD_BYTES}"
                )
            by_partition[record.topic, record.partition].append(record)
        for (topic, partition), wanted in by_partition.items():
            with _translated(f"send to {topic}"):
                await self._bounded(self._send_batches(topic, partition, wanted))

    async def _send_batches(self, topic: str, partition: int, records: list[Record]) -> None:
        client = self._alive()
        batch, count = client.create_batch(), 0
        for record in records:
            key, value, headers = record.key, record.value, record.headers or []
            if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
                await self._send_batch(topic, partition, batch, count)
                batch, count = client.create_batch(), 0
                batch.append(timestamp=None, key=key, value=value, headers=headers)
            count += 1
        await self._send_batch(topic, partition, batch, count)

    async def _send_batch(self, topic: str, partition: int, batch: Any, count: int) -> None:
        batch.close()
        answer = await self._alive().send_batch(batch, topic, partition=partition)
        answer.add_done_callback(partial(self._outbox.batch_ended, topic, count))
        self._futures.append(answer)

    async def send_offsets(self, offsets: Mapping[TopicPartition, int | tuple[int, str]], group: str) -> None:
        """Adds input offsets (next to read, optionally with metadata) of a consumer group to the
        transaction.
        """
        wanted: dict[TopicPartition, OffsetAndMetadata] = {}
        for partition, given in offsets.items():
            offset, metadata = given if isinstance(given, tuple) else (given, "")
            wanted[partition] = OffsetAndMetadata(offset, metadata)
        with _translated("send offsets"):
            await self._bounded(self._alive().send_offsets_to_transaction(wanted, group))

    async def commit(self) -> None:
        """Waits for every record of the transaction, then commits; the first failure is raised and nothing
        committed.
        """
        with self._seconds.time(), _translated("commit"):
            if self._futures:
                await self._bounded(asyncio.gather(*self._futures))
            self._futures.clear()
            await self._bounded(self._alive().commit_transaction())
        self._commits.labels(self._id, "committed").inc()

    async def abort(self) -> None:
        """Takes the transaction back."""
        with _translated("abort"):
            await self._bounded(self._outbox.flush())
            self._futures.clear()
            await self._bounded(self._alive().abort_transaction())
        self._commits.labels(self._id, "aborted").inc()

    async def stop(self) -> None:
        """Closes; an open transaction is left to the next owner's fencing."""
        client, self._client = self._client, None
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        self._outbox.fail_all(Unavailable("the producer was stopped"))
        if client is not None:
            await drop(client)

    async def committed(
        self, group: str, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, str]]:
        """(next offset to read, metadata) of each partition that the group has committed."""
        return await committed_offsets(self._settings, group, partitions)

    def _alive(self) -> AIOKafkaProducer:
        if self._client is None:
            raise Unavailable(f"transactional id {self._id} is not started")
        if self._client._txn_manager.is_fatal_error():
            raise Conflict(f"transactional id {self._id} was fenced or broken; start anew")
        return self._client

    async def _bounded(self, work: Any) -> Any:
        """Ends a wait that the client would repeat for ever while the broker is away."""
        async with asyncio.timeout(self._settings.transaction_timeout_ms / 1000):
            return await work

    async def _hand(self, record: Outgoing) -> asyncio.Future[RecordMetadata]:
        return await self._alive().send(
            record.topic,
            record.value,
            key=record.key,
            headers=record.headers,
            partition=record.partition,
        )


class _translated:
    """Context manager: aiokafka's errors leave as the loop's."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, LoopError) or not isinstance(error, Exception):
            return
        raise loop_error(error, self._what) from error


async def committed_offsets(
    settings: KafkaSettings, group: str, partitions: list[TopicPartition]
) -> dict[TopicPartition, tuple[int, str]]:
    """(next offset to read, metadata) of each of the partitions that the group has committed.

    Waits while the broker still creates its offsets topic (the first use of a new cluster).
    """
    admin = await connected(
        settings,
        lambda: AIOKafkaAdminClient(
            **connection_options(settings), request_timeout_ms=settings.request_timeout_ms
        ),
        "admin",
    )
    deadline = time.monotonic() + settings.connect_timeout_ms / 1000
    try:
        while True:
            try:
                found = await admin.list_consumer_group_offsets(group, partitions=partitions)
            except kafka.KafkaError as error:
                if not error.retriable or time.monotonic() >= deadline:
                    raise loop_error(error, f"committed offsets of {group}") from error
                await asyncio.sleep(_RETRY_S)
            else:
                return {
                    where: (kept.offset, kept.metadata) for where, kept in found.items() if kept.offset >= 0
                }
    finally:
        await admin.close()
