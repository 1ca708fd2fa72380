"""Writes records and waits for Kafka's acknowledgement, inside the caller's time.

An event counts as in flight until the broker has answered, whether or not its caller still waits. A batch
that would exceed the limit is refused whole, before anything of it is written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial

from services.collector.records import Record
from services.contract.errors import LoopError, Overloaded, Unavailable
from services.runtime.kafka_producer import Producer, RecordMetadata
from services.runtime.telemetry import counter, gauge, histogram


class Acks:
    """Of a batch of ``count`` records: ``late`` have no answer yet, ``failure`` is the first bad one."""

    def __init__(self, count: int) -> None:
        self.count = self.late = count
        self.failure: LoopError | None = None
        self.answered = asyncio.Event()


class Intake:
    """Bounded writes. ``wrote`` is told where the records of a batch went ((topic, partition))."""

    def __init__(self, producer: Producer, max_in_flight: int, wrote: Callable[..., None]) -> None:
        self._producer = producer
        self._limit = max_in_flight
        self._wrote = wrote
        self._in_flight = 0
        self._acked = cache(
            counter("collector_records_acknowledged", "Records acknowledged.", ["topic"]).labels
        )
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
        acks = Acks(len(records))
        self._producer.send_each(records, partial(self._answered, acks))
        self._in_flight += len(records)
        self._wrote(*{(record.topic, record.partition) for record in records})
        return acks

    def _answered(
        self, acks: Acks, topic: str, metadata: RecordMetadata | None, error: LoopError | None
    ) -> None:
        self._in_flight -= 1
        acks.late -= 1
        if error is None:
            self._acked(topic).inc()
        elif acks.failure is None:
            acks.failure = error
        if not acks.late:
            acks.answered.set()

    async def acknowledged(self, acks: Acks, timeout_s: float) -> None:
        """Returns when Kafka has acknowledged every record; Unavailable when it did not in time.

        Waiting ends without cancelling: what has been written stays written."""
        began = time.perf_counter()
        if acks.late:
            with suppress(TimeoutError):
                await asyncio.wait_for(acks.answered.wait(), timeout_s)
        if acks.late or acks.failure is not None:
            self._refused.labels("unavailable").inc()
            why = f"{acks.late} of {acks.count} not acknowledged within {timeout_s:.3f} s"
            raise Unavailable(str(acks.failure or why))
        self._seconds.observe(time.perf_counter() - began)
