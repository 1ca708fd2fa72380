"""The snapshots on their way to Kafka: off the caller's path, bounded, and counted when lost.

A snapshot goes to the producer's queue in the moment its answer is made and leaves with the next batch
(the producer's linger), so a kill loses less than the 200 ms that the design allows. While Kafka is
away, or when too many are pending, new ones are dropped: recommendations go on, and the joiner names the
rows ``snapshot_lost``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

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
        """Queues a snapshot; never raises and never waits.

        Both topics get it at one moment and in one order, heartbeats too (``wrote``): what is late is then
        late on both, and the schemes that read them say the same.
        """
        self._clock.observe(occurred_us)
        key = topics.request_key(request_id)
        partition = topics.partition_of(key, topics.FEATURE_SNAPSHOTS.partitions)
        metrics = self._metrics
        copies = [(topics.FEATURE_SNAPSHOTS, record, metrics.snapshots, metrics.snapshots_lost)]
        if self._slim is not None:
            slim = self._slim(record)
            copies.append((topics.FEATURE_SNAPSHOTS_SLIM, slim, metrics.slim_snapshots, metrics.slim_lost))
        away = self._producer.stalled or self._producer.pending >= self._max_pending
        for topic, copy, written, lost in copies:
            if away:
                lost.labels("kafka_away").inc()
                continue
            try:
                sent = self._producer.send_nowait(
                    topic.name, copy.SerializeToString(), key, partition=partition
                )
            except LoopError as error:
                lost.labels(type(error).__name__).inc()
            else:
                sent.add_done_callback(partial(_count, written=written, lost=lost))
        if not away:
            self._heartbeats.wrote(*((topic.name, partition) for topic, *_ in copies))

    async def emit_barrier(self, barrier_id: str, occurred_us: int) -> None:
        """Flushes, then writes the barrier to every partition and waits for all acknowledgements."""
        self._clock.observe(occurred_us)
        await self._producer.flush()
        barrier = events_pb2.Barrier(barrier_id=barrier_id, occurred_at=times.from_us(occurred_us))
        value = events_pb2.EventRecord(barrier=barrier).SerializeToString()
        places = [(topic.name, number) for topic in self._topics for number in range(topic.partitions)]
        futures = [self._producer.send_nowait(topic, value, partition=number) for topic, number in places]
        self._heartbeats.wrote(*places)
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
