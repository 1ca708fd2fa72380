"""The bounded queue in front of a Kafka client's send: order kept, everything counted.

aiokafka's ``send`` waits when a batch is full, so concurrent senders could overtake each other. Here one
pump hands records over in the order they came. A record is pending from ``put`` until the broker has
answered, whether or not its caller still waits: a caller that gave up does not take its record back.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol

from aiokafka.structs import RecordMetadata

from services.contract.errors import InvalidInput, LoopError, Overloaded
from services.contract.topics import MAX_RECORD_BYTES
from services.runtime import tracing
from services.runtime.kafka_connect import connection_options
from services.runtime.kafka_errors import loop_error
from services.runtime.settings import KafkaSettings
from services.runtime.telemetry import counter, gauge

if TYPE_CHECKING:
    from services.runtime.traced_records import SentRecords

Headers = Sequence[tuple[str, bytes]]
# Sends one record; gives the future of its acknowledgement.
Hand = Callable[["Outgoing"], Awaitable["asyncio.Future[RecordMetadata]"]]
# Told of a record's end, once: its topic, and its metadata or its error.
Ended = Callable[[str, RecordMetadata | None, LoopError | None], None]
_ENVELOPE_BYTES = 512


class Placed(Protocol):
    """A record whose partition is known."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes: ...


@dataclass(eq=False, slots=True)
class Outgoing:
    """A record on its way."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: Headers | None
    partition: int | None
    ended: Ended
    size: int
    since_s: float


class Outbox:
    """Pending records of one producer; limits from ``settings``."""

    def __init__(self, settings: KafkaSettings, client: str, hand: Hand) -> None:
        self._settings = settings
        self._hand = hand
        self._queue: deque[Outgoing] = deque()
        self._pending: OrderedDict[int, Outgoing] = OrderedDict()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._on_error: Callable[[BaseException], None] | None = None
        self._spans = _spans()
        # Looking a label up costs more than counting does.
        self._acked = cache(
            counter("kafka_records_acknowledged", "Records acknowledged by Kafka.", ["topic"]).labels
        )
        self._failed = counter("kafka_records_failed", "Records that Kafka did not take.", ["topic", "error"])
        self._refused = counter("kafka_records_refused", "Records refused: too many pending.", ["topic"])
        gauge("kafka_pending_records", "Sent, not yet acknowledged.", ["client"]).labels(client).set_function(
            lambda: len(self._pending)
        )

    def on_error(self, callback: Callable[[BaseException], None]) -> None:
        """Sets who is told of each record's raw error."""
        self._on_error = callback

    @property
    def pending(self) -> int:
        """Records put and not yet answered by the broker."""
        return len(self._pending)

    def oldest_s(self) -> float:
        """Age of the oldest pending record; 0 when there is none."""
        for record in self._pending.values():
            return time.monotonic() - record.since_s
        return 0.0

    def put(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: Headers | None,
        partition: int | None,
    ) -> asyncio.Future[RecordMetadata]:
        """Queues a record; its future ends with metadata or a LoopError. Raises Overloaded, or InvalidInput
        when the record is larger than any topic takes.
        """
        size = _size(topic, value, key)
        self._admit([topic], size)
        future = asyncio.get_running_loop().create_future()
        if self._spans is not None and headers is None and (span := self._spans.sending(topic, key)):
            headers = [self._spans.header_of(span)]
            self._spans.when_sent(span, future)
        ended = partial(_end, future)
        self._queue_one(Outgoing(topic, value, key, headers, partition, ended, size, time.monotonic()))
        return future

    def put_each(self, records: Sequence[Placed], ended: Ended) -> None:
        """Queues records as ``put`` does, all or none. ``ended`` is told of each: a future and its callback
        for each would cost as much again."""
        sizes = [_size(record.topic, record.value, record.key) for record in records]
        self._admit([record.topic for record in records], sum(sizes))
        if self._spans is not None:
            for record in records:
                sent = self.put(record.topic, record.value, record.key, None, record.partition)
                sent.add_done_callback(partial(_tell, record.topic, ended))
            return
        now_s = time.monotonic()
        for record, size in zip(records, sizes, strict=True):
            self._queue_one(
                Outgoing(record.topic, record.value, record.key, None, record.partition, ended, size, now_s)
            )

    def _admit(self, topics: Sequence[str], size: int) -> None:
        """Overloaded when records of these topics do not fit, all together."""
        if (
            len(self._pending) + len(topics) > self._settings.max_pending_records
            or self._bytes + size > self._settings.max_pending_bytes
        ):
            for topic in topics:
                self._refused.labels(topic).inc()
            raise Overloaded(f"{len(self._pending)} records ({self._bytes} bytes) wait for Kafka")

    def _queue_one(self, record: Outgoing) -> None:
        self._pending[id(record)] = record
        self._bytes += record.size
        self._idle.clear()
        self._queue.append(record)
        self._wake.set()

    async def pump(self) -> None:
        """Hands records over, one after another, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                record = self._queue.popleft()
                try:
                    acknowledgement = await self._hand(record)
                except asyncio.CancelledError:
                    self._finish(record, None, asyncio.CancelledError())
                    raise
                except Exception as error:
                    self._finish(record, None, error)
                else:
                    acknowledgement.add_done_callback(partial(self._answered, record))

    def _answered(self, record: Outgoing, answer: asyncio.Future[RecordMetadata]) -> None:
        if answer.cancelled():
            self._finish(record, None, asyncio.CancelledError())
        elif answer.exception() is not None:
            self._finish(record, None, answer.exception())
        else:
            self._finish(record, answer.result(), None)

    def _finish(self, record: Outgoing, metadata: RecordMetadata | None, error: BaseException | None) -> None:
        if self._pending.pop(id(record), None) is None:
            return
        self._bytes -= record.size
        if not self._pending:
            self._idle.set()
        if error is None:
            self._acked(record.topic).inc()
            record.ended(record.topic, metadata, None)
            return
        self._failed.labels(record.topic, type(error).__name__).inc()
        if self._on_error is not None:
            self._on_error(error)
        record.ended(record.topic, None, loop_error(error, f"send to {record.topic}"))

    def batch_ended(self, topic: str, count: int, answer: asyncio.Future[RecordMetadata]) -> None:
        """Counts the records of a batch that was sent beside the queue."""
        if answer.cancelled():
            return
        error = answer.exception()
        if error is None:
            self._acked(topic).inc(count)
        else:
            self._failed.labels(topic, type(error).__name__).inc(count)

    def fail_all(self, error: BaseException) -> None:
        """Ends everything pending with an error (the client behind it is gone)."""
        self._queue.clear()
        for record in list(self._pending.values()):
            self._finish(record, None, error)

    async def flush(self) -> None:
        """Returns when nothing is pending; whether it was acknowledged is in each record's future."""
        await self._idle.wait()


def _size(topic: str, value: bytes | None, key: bytes | None) -> int:
    size = len(value or b"") + len(key or b"") + _ENVELOPE_BYTES
    if size > MAX_RECORD_BYTES:
        raise InvalidInput.one(f"record for {topic}", f"{size} bytes", f"at most {MAX_RECORD_BYTES}")
    return size


def _end(
    future: asyncio.Future[RecordMetadata],
    topic: str,
    metadata: RecordMetadata | None,
    error: LoopError | None,
) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(metadata)
    else:
        future.set_exception(error)
        future.exception()  # seen: a sender that does not wait relies on the counter


def _tell(topic: str, ended: Ended, sent: asyncio.Future[RecordMetadata]) -> None:
    error = sent.exception()
    assert error is None or isinstance(error, LoopError)  # as put says
    ended(topic, None if error else sent.result(), error)


def _spans() -> SentRecords | None:
    traced = tracing.active()
    if traced is None:
        return None
    # Imported here: only this needs OpenTelemetry.
    from services.runtime.traced_records import SentRecords

    return SentRecords(traced)


def client_options(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    """Constructor arguments that every aiokafka producer here shares."""
    return {
        **connection_options(settings),
        "client_id": client_id,
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": settings.linger_ms,
        "max_batch_size": settings.max_batch_bytes,
        "max_request_size": MAX_RECORD_BYTES,
        "request_timeout_ms": settings.request_timeout_ms,
    }
