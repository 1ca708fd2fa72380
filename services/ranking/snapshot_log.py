"""The snapshots on their way to Kafka: off the caller's path, bounded, and counted when lost.

A snapshot goes to the producer's queue in the moment its answer is made and leaves with the next batch
(the producer's linger), so a kill loses less than the 200 ms that the design allows. While Kafka is
away, or when too many are pending, new ones are dropped: recommendations go on, and the joiner names the
rows ``snapshot_lost``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import Counter

from rec.events.v1 import events_pb2
from services.contract import times, topics
from services.contract.errors import LoopError
from services.ranking.metrics import Metrics
from services.runtime.clock import RunClock
from services.runtime.heartbeats import HeartbeatWriter
from services.runtime.kafka_producer import Producer, RecordMetadata

# How a snapshot becomes slim (slim.Slimmer).
Slim = Callable[[events_pb2.EventRecord], events_pb2.EventRecord]


def encode_heartbeat(replica: str, now_us: int) -> bytes:
    """The value of a heartbeat."""
    beat = events_pb2.Heartbeat(writer=f"ranking/{replica}", occurred_at=times.from_us(now_us))
    return events_pb2.EventRecord(heartbeat=beat).SerializeToString()


class SnapshotLog:
    """Writes snapshots and barriers to feature-snapshots, and to feature-snapshots-slim when there is a
    ``slim``.
    """

    def __init__(
        self,
        producer: Producer,
        clock: RunClock,
        heartbeats: HeartbeatWriter,
        metrics: Metrics,
        *,
        max_pending: int,
        slim: Slim | None = None,
    ) -> None:
        self._producer = producer
        self._clock = clock
        self._heartbeats = heartbeats
        self._metrics = metrics
        self._max_pending = max_pending
        self._slim = slim
        self._topics = logged_topics(slim is not None)

    def add(self, request_id: str, occurred_us: int, record: events_pb2.EventRecord) -> None:
        """Queues a snapshot; never raises and never waits."""
        self._clock.observe(occurred_us)
        key = topics.request_key(request_id)
        self._send(
            topics.FEATURE_SNAPSHOTS, key, record, self._metrics.snapshots, self._metrics.snapshots_lost
        )
        if self._slim is not None:
            slim, metrics = self._slim(record), self._metrics
            self._send(topics.FEATURE_SNAPSHOTS_SLIM, key, slim, metrics.slim_snapshots, metrics.slim_lost)

    def _send(
        self, topic: topics.Topic, key: bytes, record: events_pb2.EventRecord, written: Counter, lost: Counter
    ) -> None:
        if self._producer.stalled or self._producer.pending >= self._max_pending:
            lost.labels("kafka_away").inc()
            return
        partition = topics.partition_of(key, topic.partitions)
        try:
            future = self._producer.send_nowait(
                topic.name, record.SerializeToString(), key, partition=partition
            )
        except LoopError as error:
            lost.labels(type(error).__name__).inc()
            return
        self._heartbeats.wrote(topic.name, partition)
        future.add_done_callback(lambda ended: _count(ended, written, lost))

    async def emit_barrier(self, barrier_id: str, occurred_us: int) -> None:
        """Flushes, then writes the barrier to every partition and waits for all acknowledgements."""
        self._clock.observe(occurred_us)
        await self._producer.flush()
        barrier = events_pb2.Barrier(barrier_id=barrier_id, occurred_at=times.from_us(occurred_us))
        value = events_pb2.EventRecord(barrier=barrier).SerializeToString()
        places = [(topic.name, number) for topic in self._topics for number in range(topic.partitions)]
        futures = [self._producer.send_nowait(topic, value, partition=number) for topic, number in places]
        for topic, number in places:
            self._heartbeats.wrote(topic, number)
        await asyncio.gather(*futures)


def logged_topics(slim: bool) -> tuple[topics.Topic, ...]:
    """What ranking logs to."""
    return (topics.FEATURE_SNAPSHOTS, topics.FEATURE_SNAPSHOTS_SLIM)[: 1 + slim]


def _count(ended: asyncio.Future[RecordMetadata], written: Counter, lost: Counter) -> None:
    if ended.cancelled():
        lost.labels("stopped").inc()
    elif (error := ended.exception()) is not None:
        lost.labels(type(error).__name__).inc()
    else:
        written.inc()
