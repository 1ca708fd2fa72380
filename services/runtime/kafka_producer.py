"""Produce to Kafka: acks=all, idempotent, bounded.

Delivery: a future that ends with metadata means the brokers hold the record. While the broker is away a
record stays pending and is sent when it returns (the idempotent client never expires it), so a caller that
timed out may find its record in the log later: at-least-once, made exactly-once by ids downstream. An error
that breaks the client for good (a sequence the broker refuses, e.g. after it lost its log) fails everything
pending and rebuilds the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.structs import RecordMetadata

from services.contract.errors import Unavailable
from services.runtime.kafka_connect import connected, drop
from services.runtime.kafka_errors import is_fatal
from services.runtime.kafka_outbox import Ended, Headers, Outbox, Outgoing, Placed, client_options
from services.runtime.kafka_transactions import TransactionalProducer
from services.runtime.settings import KafkaSettings
from services.runtime.telemetry import counter, get_logger

__all__ = ["Producer", "RecordMetadata", "TransactionalProducer"]

log = get_logger(__name__)


class Producer:
    """An idempotent producer. One event loop; ``start``, then send, then ``stop``."""

    def __init__(self, settings: KafkaSettings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._client: AIOKafkaProducer | None = None
        self._outbox = Outbox(settings, client_id, self._hand)
        self._outbox.on_error(self._on_error)
        self._broken = asyncio.Event()
        self._tasks: list[asyncio.Task[Any]] = []
        self._rebuilds = counter("kafka_producer_rebuilds", "Producers rebuilt after a fatal error.")

    async def start(self) -> None:
        """Connects; Unavailable when the broker does not come within ``connect_timeout_ms``."""
        self._client = await self._connect()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._outbox.pump(), name=f"{self._client_id} pump"),
            loop.create_task(self._mend(), name=f"{self._client_id} mend"),
        ]

    async def _connect(self) -> AIOKafkaProducer:
        options = client_options(self._settings, self._client_id)
        return await connected(self._settings, lambda: AIOKafkaProducer(**options), "producer")

    @property
    def connected(self) -> bool:
        """Whether there is a client, and Kafka has answered it lately."""
        return self._client is not None and not self.stalled

    @property
    def stalled(self) -> bool:
        """Whether a record has waited longer than ``stalled_ms`` for its acknowledgement."""
        return self._outbox.oldest_s() * 1000 > self._settings.stalled_ms

    @property
    def pending(self) -> int:
        """Records sent and not yet answered."""
        return self._outbox.pending

    def send_nowait(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        """Queues a record in order. The future ends with metadata, or a LoopError. Raises Overloaded or
        InvalidInput.

        Without ``partition`` Kafka's own partitioner places the key. A future that nobody awaits is only
        counted.
        """
        if not self._tasks:
            raise Unavailable("the producer is not started")
        return self._outbox.put(topic, value, key, headers, partition)

    def send_each(self, records: Sequence[Placed], ended: Ended) -> None:
        """Queues records in order, all or none; ``ended`` is told of each record once, instead of a future.
        Raises as ``send_nowait`` does."""
        if not self._tasks:
            raise Unavailable("the producer is not started")
        self._outbox.put_each(records, ended)

    async def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
    ) -> RecordMetadata:
        """Sends a record and waits for the acknowledgement."""
        return await self.send_nowait(topic, value, key, headers, partition)

    async def flush(self) -> None:
        """Waits until nothing is pending; may wait as long as Kafka is away (use a timeout)."""
        await self._outbox.flush()

    async def stop(self) -> None:
        """Flushes (at most one request timeout), closes; what could not be sent fails with Unavailable."""
        if not self._tasks:
            return
        try:
            async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                await self._outbox.flush()
        except TimeoutError:
            log.error("records lost at the stop", count=self._outbox.pending)
        finally:
            await self._close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._outbox.fail_all(Unavailable("the producer was stopped"))
        client, self._client = self._client, None
        if client is not None:
            await drop(client)

    def _hand(self, record: Outgoing) -> Awaitable[asyncio.Future[RecordMetadata]]:
        if self._client is None:
            raise Unavailable("the producer is being rebuilt")
        sent: Awaitable[asyncio.Future[RecordMetadata]] = self._client.send(
            record.topic, record.value, record.key, record.partition, None, record.headers
        )
        return sent

    def _on_error(self, error: BaseException) -> None:
        sender = self._client._sender.sender_task if self._client is not None else None
        if is_fatal(error) or (sender is not None and sender.done()):
            self._broken.set()

    async def _mend(self) -> None:
        while True:
            await self._broken.wait()
            client, self._client = self._client, None
            self._rebuilds.inc()
            log.error("producer broken: rebuilding")
            if client is not None:
                await drop(client)
            self._outbox.fail_all(Unavailable("the producer was rebuilt"))
            while self._client is None:
                try:
                    self._client = await self._connect()
                except Unavailable as error:
                    log.error("rebuild failed, again", error=str(error))
            self._broken.clear()
