"""The snapshots on their way to Kafka: off the caller's path, bounded, and counted when lost.

A snapshot goes to the producer's queue in the moment its answer is made and leaves with the next batch
(the producer's linger), so a kill loses less than the 200 ms that the design allows. While Kafka is
away, or when too many are pending, new ones are dropped: recommendations go on, and the joiner names the
rows ``snapshot_lost``.
"""

from __future__ import annotations

import asyncio

from rec.events.v1 import events_pb2
from services.contract import times, topics
from services.contract.errors import LoopError
from services.ranking.metrics import Metrics
from services.runtime.clock import RunClock
from services.runtime.heartbeats import HeartbeatWriter
from services.runtime.kafka_producer import Producer, RecordMetadata

_TOPIC = topics.FEATURE_SNAPSHOTS


def encode_heartbeat(replica: str, now_us: int) -> bytes:
    """The value of a heartbeat."""
    beat = events_pb2.Heartbeat(writer=f"ranking/{replica}", occurred_at=times.from_us(now_us))
    return events_pb2.EventRecord(heartbeat=beat).SerializeToString()


class SnapshotLog:
    """Writes snapshots and barriers to feature-snapshots."""

    def __init__(
        self,
        producer: Producer,
        clock: RunClock,
        heartbeats: HeartbeatWriter,
        metrics: Metrics,
        max_pending: int,
    ) -> None:
        self._producer = producer
        self._clock = clock
        self._heartbeats = heartbeats
        self._metrics = metrics
        self._max_pending = max_pending

    def add(self, request_id: str, occurred_us: int, record: events_pb2.EventRecord) -> None:
        """Queues a snapshot; never raises and never waits."""
        self._clock.observe(occurred_us)
        if self._producer.stalled or self._producer.pending >= self._max_pending:
            self._metrics.snapshots_lost.labels("kafka_away").inc()
            return
        key = topics.request_key(request_id)
        partition = topics.partition_of(key, _TOPIC.partitions)
        try:
            future = self._producer.send_nowait(
                _TOPIC.name, record.SerializeToString(), key, partition=partition
            )
        except LoopError as error:
            self._metrics.snapshots_lost.labels(type(error).__name__).inc()
            return
        self._heartbeats.wrote(_TOPIC.name, partition)
        future.add_done_callback(self._ended)

    def _ended(self, future: asyncio.Future[RecordMetadata]) -> None:
        if future.cancelled():
            self._metrics.snapshots_lost.labels("stopped").inc()
        elif (error := future.exception()) is not None:
            self._metrics.snapshots_lost.labels(type(error).__name__).inc()
        else:
            self._metrics.snapshots.inc()

    async def emit_barrier(self, barrier_id: str, occurred_us: int) -> None:
        """Flushes, then writes the barrier to every partition and waits for all acknowledgements."""
        self._clock.observe(occurred_us)
        await self._producer.flush()
        barrier = events_pb2.Barrier(barrier_id=barrier_id, occurred_at=times.from_us(occurred_us))
        value = events_pb2.EventRecord(barrier=barrier).SerializeToString()
        futures = [
            self._producer.send_nowait(_TOPIC.name, value, partition=number)
            for number in range(_TOPIC.partitions)
        ]
        for number in range(_TOPIC.partitions):
            self._heartbeats.wrote(_TOPIC.name, number)
        await asyncio.gather(*futures)
