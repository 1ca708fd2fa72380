"""Writes records and waits for Kafka's acknowledgement, inside the caller's time.

An event counts as in flight until the broker has answered, whether or not its caller still waits. A batch
that would exceed the limit is refused whole, before anything of it is written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial

from services.collector.records import Record
from services.contract.errors import Overloaded, Unavailable
from services.runtime.kafka_producer import Producer
from services.runtime.telemetry import counter, gauge, histogram

Acks = Sequence["asyncio.Future[object]"]


class Intake:
    """Bounded writes. ``wrote`` is told of every record handed to Kafka ((topic, partition))."""

    def __init__(
        self, producer: Producer, max_in_flight: int, wrote: Callable[[tuple[str, int]], None]
    ) -> None:
        self._producer = producer
        self._limit = max_in_flight
        self._wrote = wrote
        self._in_flight = 0
        self._acked = counter("collector_records_acknowledged", "Records acknowledged.", ["topic"])
        self._refused = counter("collector_batches_refused", "Batches not acknowledged.", ["reason"])
        self._seconds = histogram("collector_ack_seconds", "From writing a batch to its acknowledgement.")
        gauge("collector_in_flight_events", "Written, not yet answered by Kafka.").set_function(
            lambda: self._in_flight
        )

    @property
    def in_flight(self) -> int:
        """Records written and not yet answered."""
        return self._in_flight

    def write(self, records: Sequence[Record]) -> Acks:
        """Hands a batch to the producer in order. Overloaded: it does not fit; Unavailable: Kafka is away."""
        if self._producer.stalled:
            self._refused.labels("unavailable").inc()
            raise Unavailable("Kafka does not answer; nothing was acknowledged")
        if self._in_flight + len(records) > self._limit:
            self._refused.labels("overloaded").inc()
            raise Overloaded(f"{self._in_flight} events wait for Kafka, {self._limit} may")
        return [self._write_one(record) for record in records]

    def _write_one(self, record: Record) -> asyncio.Future[object]:
        sent = self._producer.send_nowait(
            record.topic, record.value, key=record.key, partition=record.partition
        )
        self._in_flight += 1
        sent.add_done_callback(partial(self._answered, record.topic))
        self._wrote((record.topic, record.partition))
        return sent

    def _answered(self, topic: str, sent: asyncio.Future[object]) -> None:
        self._in_flight -= 1
        if not sent.cancelled() and sent.exception() is None:
            self._acked.labels(topic).inc()

    async def acknowledged(self, acks: Acks, timeout_s: float) -> None:
        """Returns when Kafka has acknowledged every record; Unavailable when it did not in time.

        Waiting ends without cancelling: what has been written stays written."""
        began = time.perf_counter()
        done, late = await asyncio.wait(acks, timeout=timeout_s) if acks else (set(), set())
        failure = next((sent.exception() for sent in done if sent.exception() is not None), None)
        if late or failure is not None:
            self._refused.labels("unavailable").inc()
            why = f"{len(late)} of {len(acks)} not acknowledged within {timeout_s:.3f} s"
            raise Unavailable(str(failure) if failure is not None else why)
        self._seconds.observe(time.perf_counter() - began)
