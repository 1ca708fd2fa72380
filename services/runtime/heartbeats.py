"""Heartbeats: a partition on which nothing happens still learns what time it is.

A writer of event topics keeps the time of its last record per partition; one that has been idle for
``idle_ms`` gets a record that carries the run clock. Before the first event there is no clock, and a clock
that moves only with events (time_scale 0) has nothing to say: then none are written. The value is made by
the caller's ``encode``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from services.contract.errors import Unavailable
from services.runtime.clock import RunClock
from services.runtime.kafka_producer import Producer
from services.runtime.telemetry import counter, get_logger

log = get_logger(__name__)


class IdlePartitions:
    """Which partitions have been idle, by a monotonic clock in seconds. Pure."""

    def __init__(self, partitions: Mapping[str, int], idle_s: float, now_s: float) -> None:
        self._idle_s = idle_s
        self._last: dict[tuple[str, int], float] = {
            (topic, number): now_s for topic, count in partitions.items() for number in range(count)
        }

    def wrote(self, topic: str, partition: int, now_s: float) -> None:
        """A record went to a partition; unknown ones are ignored."""
        if (topic, partition) in self._last:
            self._last[topic, partition] = now_s

    def take(self, now_s: float) -> list[tuple[str, int]]:
        """The partitions that have been idle long enough; they count as written from now on."""
        idle = [where for where, last in self._last.items() if now_s - last >= self._idle_s]
        for where in idle:
            self._last[where] = now_s
        return idle

    def next_s(self) -> float:
        """When the next partition becomes idle."""
        return min(self._last.values()) + self._idle_s


class HeartbeatWriter:
    """Writes heartbeats to idle partitions of ``partitions`` (topic -> count); run it with
    ``process.spawn``.
    """

    def __init__(
        self,
        producer: Producer,
        clock: RunClock,
        partitions: Mapping[str, int],
        encode: Callable[[int], bytes],
        idle_ms: int = 200,
    ) -> None:
        if idle_ms <= 0:
            raise ValueError(f"idle_ms={idle_ms}: above 0")
        self._producer = producer
        self._clock = clock
        self._encode = encode
        self._idle = IdlePartitions(partitions, idle_ms / 1000, time.monotonic())
        self._written = counter("heartbeats_written", "Heartbeats written.", ["topic"])
        self._skipped = counter("heartbeats_skipped", "Heartbeats not written: Kafka does not answer.")

    def wrote(self, *places: tuple[str, int]) -> None:
        """Records of another kind went to these (topic, partition) at one moment, so that partitions which
        are always written together also get their heartbeats together."""
        now_s = time.monotonic()
        for topic, partition in places:
            self._idle.wrote(topic, partition, now_s)

    async def run(self) -> None:
        """Writes until cancelled; returns at once when the clock moves only with events."""
        while self._clock.runs:
            await asyncio.sleep(max(0.005, self._idle.next_s() - time.monotonic()))
            now_us = self._clock.now_us()
            idle = self._idle.take(time.monotonic())
            if now_us is not None:
                self._write(idle, now_us)

    def _write(self, idle: list[tuple[str, int]], now_us: int) -> None:
        value = self._encode(now_us)
        for topic, partition in idle:
            # While Kafka is away heartbeats must not fill the queue that events need.
            if self._producer.stalled:
                self._skipped.inc()
                continue
            try:
                self._producer.send_nowait(topic, value, partition=partition)
            except Unavailable:
                self._skipped.inc()
            else:
                self._written.labels(topic).inc()
