"""One replica put together: arms, scoring thread, logs. Wiring that tests use with a feed of their own.

Start: producer -> feature-views, then releases to their end -> arms load aside -> default arm serves ->
SERVING.
Stop: NOT_SERVING -> calls end -> followers and tails end -> scoring thread -> producer flushes its snapshots.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from rec.model.v1 import model_pb2
from rec.v1 import ranking_pb2, ranking_pb2_grpc
from services.contract import id_table, times, topics
from services.contract.errors import LoopError
from services.contract.feature_sets import feature_set
from services.contract.signature import Trusted
from services.contract.view_growth import GrowingSet
from services.ranking import base_loader
from services.ranking.applied_log import AppliedLog
from services.ranking.arms import Arms
from services.ranking.barriers import Barriers, Passed
from services.ranking.delta_feed import DeltaFeed, FeedRecord, KafkaDeltaFeed
from services.ranking.follower import Follower
from services.ranking.follower_tools import Applied, Tools
from services.ranking.metrics import Metrics
from services.ranking.scorer import Scorer
from services.ranking.served_sets import ServedSets
from services.ranking.servicer import RankingServicer
from services.ranking.settings import Settings
from services.ranking.snapshot_log import SnapshotLog, encode_heartbeat, logged_topics
from services.runtime.clock import RunClock, WallClock
from services.runtime.grpc_server import GrpcServer
from services.runtime.heartbeats import HeartbeatWriter
from services.runtime.kafka_producer import Producer
from services.runtime.process import Process
from services.runtime.telemetry import get_logger
from services.runtime.throttle import Throttle
from services.runtime.traced_deltas import applied_deltas

if TYPE_CHECKING:
    from services.ranking.slim import Slimmer

log = get_logger(__name__)
SERVICE = "rec.v1.RankingService"
OpenFeed = Callable[[str], DeltaFeed]


class Replica:
    """Builds the parts; the process owns their tasks and their closing order."""

    def __init__(
        self,
        process: Process,
        settings: Settings,
        open_feed: OpenFeed | None = None,
        producer: Producer | None = None,
        sets: ServedSets | None = None,
    ) -> None:
        self.settings = settings
        named = feature_set(settings.feature_set)
        self.sets = sets or ServedSets(GrowingSet(settings.feature_set, named))
        self._trusted = Trusted.read(settings.trusted_keys_file)
        self._process = process
        self._clock = WallClock()
        self.metrics = Metrics()
        self._traces = applied_deltas(replica=settings.replica)
        self.producer = producer or Producer(settings.kafka, f"{settings.name}-{settings.replica}")
        run_clock = RunClock(settings.time_scale)
        self.heartbeats = HeartbeatWriter(
            self.producer,
            run_clock,
            {topic.name: topic.partitions for topic in logged_topics(settings.slim_snapshots)},
            lambda now_us: encode_heartbeat(settings.replica, now_us),
            settings.heartbeat_idle_ms,
        )
        self.scorer = Scorer(settings.max_queue)
        self.applied = AppliedLog()
        self.barriers = Barriers()
        self.slimmer = _slimmer(settings, self.metrics) if settings.slim_snapshots else None
        self.snapshots = SnapshotLog(
            self.producer,
            run_clock,
            self.heartbeats,
            self.metrics,
            max_pending=settings.max_snapshots_pending,
            slim=None if self.slimmer is None else self.slimmer.slim,
        )
        self._open_feed = open_feed or self._kafka_feed
        self.arms = Arms(settings.arms, process.spawn, self._follow)
        self.metrics.queued.set_function(lambda: self.scorer.queued)
        servicer = RankingServicer(
            settings,
            sets=self.sets,
            arms=self.arms,
            scorer=self.scorer,
            snapshots=self.snapshots,
            applied=self.applied,
            barriers=self.barriers,
            clock=self._clock,
            metrics=self.metrics,
        )
        register = ranking_pb2_grpc.add_RankingServiceServicer_to_server
        self.server = GrpcServer(settings.grpc, process, [(register, servicer, SERVICE)])

    async def start(self) -> None:
        """Everything that does not need a model: ports, producer, scoring thread, heartbeats."""
        torch.set_num_threads(self.settings.threads)
        await asyncio.to_thread(id_table.warm_up)
        self._process.push_close("scoring thread", self._close_scorer)
        await self.server.start()
        await self.producer.start()
        self._process.push_close("snapshot producer", self.producer.stop)
        self._process.spawn(self.heartbeats.run(), "heartbeats")
        if self.slimmer is not None:
            self._process.spawn(self.slimmer.run(), "batch features")

    async def until_serving(self) -> None:
        """Returns when the default arm serves and the others have had their time; then declares SERVING."""
        await self.arms.until_serving(self.settings.default_arm)
        try:
            async with asyncio.timeout(self.settings.load_wait_ms / 1000):
                await self.arms.until_settled()
        except TimeoutError:
            log.warning("serving before every arm is loaded", serving=sorted(self.arms.serving))
        self.server.set_serving(True)

    async def _close_scorer(self) -> None:
        await asyncio.to_thread(self.scorer.close)

    def _kafka_feed(self, arm: str) -> DeltaFeed:
        return KafkaDeltaFeed(self.settings.kafka, f"{self.settings.name}-{self.settings.replica}-{arm}")

    def _follow(self, release: model_pb2.Release) -> Follower:
        tools = Tools(
            load_base=lambda wish, base, throttle: base_loader.load(
                wish,
                base,
                self.sets,
                self.settings.model_store_uri,
                trusted=self._trusted,
                breathe=throttle,
            ),
            throttle=self._throttle,
            open_feed=self._open_feed,
            scorer=self.scorer,
            clock=self._clock,
            metrics=self.metrics,
            retry_s=self.settings.base_retry_ms / 1000,
            unserved=lambda arm: arm not in self.arms.serving,
            on_served=self._on_served,
            on_applied=self._on_applied,
            on_bad=lambda record, partition, reason: self.dead_letter(
                topics.MODEL_DELTAS.name, partition, record, reason
            ),
            traces=self._traces,
        )
        return Follower(release, tools)

    def _throttle(self, wish: model_pb2.Release) -> Throttle:
        """A newer model has time while requests are served; a first one, a repair and a way back have not."""
        serving = self.arms.serving.get(wish.arm)
        newer = serving is None or wish.lineage.generation > serving.state.generation
        return Throttle(self.settings.load_share if newer and self.server.health.serving else 1.0)

    def _on_served(self, follower: Follower) -> None:
        self.arms.served(follower)
        arm = follower.arm
        self.metrics.staleness.labels(arm).set_function(lambda: self._staleness_s(arm))

    def _staleness_s(self, arm: str) -> float:
        model = self.arms.serving.get(arm)
        return 0.0 if model is None else (self._clock.now_us() - model.state.created_at_us) / times.MICROS

    def _on_applied(self, follower: Follower, applied: Applied) -> None:
        arm, now_us, metrics = follower.arm, self._clock.now_us(), self.metrics
        model = follower.model
        applied_us = now_us if model is None else model.applied_us
        self.applied.append(
            ranking_pb2.WatchAppliedResponse(
                replica=self.settings.replica,
                arm=arm,
                model=applied.version,
                created_at=times.from_us(applied.created_us),
                applied_at=times.from_us(applied_us),
                rows=applied.rows,
                bytes=applied.bytes,
            )
        )
        self.barriers.note(arm, applied.barrier_ids, Passed(applied.version, applied_us))
        metrics.generation.labels(arm).set(applied.version.lineage.generation)
        metrics.sequence.labels(arm).set(applied.version.sequence)
        if model is not None:
            metrics.rows.labels(arm).set(model.state.rows)
        if applied.bytes:
            metrics.deltas.labels(arm).inc()
            metrics.delta_rows.labels(arm).inc(applied.rows)
            metrics.delta_bytes.labels(arm).inc(applied.bytes)

    def dead_letter(self, topic: str, partition: int, record: FeedRecord, reason: str) -> None:
        """Keeps the original bytes of a record that cannot be used, with its origin; never raises."""
        self.metrics.dead_letters.labels(topic).inc()
        headers = topics.rejection_headers(reason, topic, partition, record.offset)
        try:
            self.producer.send_nowait(topics.DEAD_LETTERS.name, record.value, headers=headers)
        except LoopError as error:
            log.error("dead letter lost", topic=topic, offset=record.offset, error=str(error))


def _slimmer(settings: Settings, metrics: Metrics) -> Slimmer:
    # Imported here: only this needs Parquet.
    from services.contract.lake_store import LakeStore
    from services.ranking.slim import Slimmer

    return Slimmer(
        LakeStore(settings.lake_uri),
        feature_set(settings.feature_set),
        metrics,
        settings.view_poll_ms / 1000,
    )
