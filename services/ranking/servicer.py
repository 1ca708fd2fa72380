"""RankingService: thin. Checks, hands over to the scoring thread, answers, logs the snapshot."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import grpc

from rec.v1 import provenance_pb2, ranking_pb2, ranking_pb2_grpc
from services.contract import times
from services.contract.chain import SlotState
from services.contract.errors import (
    Conflict,
    DeadlineSpent,
    FieldViolation,
    InvalidInput,
    LoopError,
    NotFound,
)
from services.ranking import answers
from services.ranking.applied_log import AppliedLog
from services.ranking.arms import Arms
from services.ranking.barriers import Barriers
from services.ranking.metrics import Metrics
from services.ranking.rank import Job, Result
from services.ranking.request_check import check
from services.ranking.scorer import Scorer
from services.ranking.served_sets import ServedSets
from services.ranking.settings import Settings
from services.ranking.snapshot_log import SnapshotLog
from services.ranking.status import StatusDesk
from services.runtime.clock import WallClock
from services.runtime.grpc_client import remaining_s

MAX_BARRIER_CHARS = 128
MAX_BARRIER_WAIT_S = 60.0
_RESYNCS = (SlotState.RESYNC_LOG, SlotState.RESYNC_BASE)


class RankingServicer(ranking_pb2_grpc.RankingServiceServicer):
    """Everything it works with is given."""

    def __init__(
        self,
        settings: Settings,
        *,
        sets: ServedSets,
        arms: Arms,
        scorer: Scorer,
        snapshots: SnapshotLog,
        applied: AppliedLog,
        barriers: Barriers,
        clock: WallClock,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._sets = sets
        self._arms = arms
        self._scorer = scorer
        self._snapshots = snapshots
        self._applied = applied
        self._barriers = barriers
        self._clock = clock
        self._metrics = metrics
        self._status = StatusDesk(scorer)

    async def Rank(
        self, request: ranking_pb2.RankRequest, context: grpc.aio.ServicerContext
    ) -> ranking_pb2.RankResponse:
        """Scores the candidates with one version of the arm's model and returns the best n."""
        try:
            return await self._rank(request, context)
        except LoopError as error:
            self._metrics.refused.labels(type(error).__name__).inc()
            raise

    async def _rank(
        self, request: ranking_pb2.RankRequest, context: grpc.aio.ServicerContext
    ) -> ranking_pb2.RankResponse:
        shape = await self._sets.find(request.schema_hash)
        candidates = check(request, shape, self._settings.max_candidates)
        arm, refused = self._arm_for(request)
        model = self._arms.model(arm)
        since = time.monotonic()
        deadline = since + self._patience_s(context)
        job = Job(model, tuple(request.shadow_arms), self._arms.serving, candidates, since, deadline)
        result = await self._scorer.score(job)
        now_us = self._clock.now_us()
        answer = answers.response(
            request,
            candidates,
            result,
            replica=self._settings.replica,
            now_us=now_us,
            degraded=[*refused, *self._degraded(arm, result)],
        )
        record = answers.snapshot(request, candidates, result.main, now_us)
        self._snapshots.add(request.request_id, candidates.occurred_us, record)
        self._count(request, result, len(candidates.item_ids))
        return answer

    def _patience_s(self, context: grpc.aio.ServicerContext) -> float:
        settings = self._settings
        return remaining_s(
            context, settings.default_deadline_ms / 1000, longest_s=settings.max_deadline_ms / 1000
        )

    def _arm_for(self, request: ranking_pb2.RankRequest) -> tuple[str, list[provenance_pb2.Degradation]]:
        """The arm to serve, and what is to be said about it: no user suffers from an arm that was drawn for
        him."""
        arm = request.arm or self._settings.default_arm
        if not request.arm_assigned or arm in self._arms.serving:
            return arm, []
        return self._settings.default_arm, [
            provenance_pb2.Degradation(source="ranking.arm", reason="not_loaded")
        ]

    def _degraded(self, arm: str, result: Result) -> list[provenance_pb2.Degradation]:
        degraded = []
        follower = self._arms.followers.get(arm)
        if follower is not None and follower.slot.state in _RESYNCS:
            reason = follower.slot.state.value
            degraded.append(provenance_pb2.Degradation(source="ranking.model", reason=reason))
        if result.main.lacks:
            degraded.append(provenance_pb2.Degradation(source="ranking.features", reason="columns_missing"))
        return degraded

    def _count(self, request: ranking_pb2.RankRequest, result: Result, rows: int) -> None:
        self._metrics.score_seconds.observe(result.took_s)
        self._metrics.queue_seconds.observe(result.waited_s)
        for one in (result.main, *result.shadows.values()):
            self._metrics.candidates.labels(one.arm).inc(rows)
            if one.lacks:
                self._metrics.columns_missing.labels(one.arm).inc()
        missing = len(request.shadow_arms) - len(result.shadows)
        if missing:
            self._metrics.shadow_missing.inc(missing)
        if request.features_degraded:
            self._metrics.degraded.inc()

    async def GetModelStatus(
        self, request: ranking_pb2.GetModelStatusRequest, context: grpc.aio.ServicerContext
    ) -> ranking_pb2.GetModelStatusResponse:
        """The slots of all arms, each with the digest of its state."""
        statuses = [await self._status.of(follower) for follower in self._arms.all()]
        return ranking_pb2.GetModelStatusResponse(arms=statuses, replica=self._settings.replica)

    async def WatchApplied(
        self, request: ranking_pb2.WatchAppliedRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[ranking_pb2.WatchAppliedResponse]:
        """Every applied base and delta; RESOURCE_EXHAUSTED when the caller reads too slowly."""
        async for entry in self._applied.watch(request.arm):
            yield entry

    async def WaitForBarrier(
        self, request: ranking_pb2.RankingServiceWaitForBarrierRequest, context: grpc.aio.ServicerContext
    ) -> ranking_pb2.RankingServiceWaitForBarrierResponse:
        """Waits until the arm serves a model that contains everything before the barrier."""
        _check_barrier_id(request.barrier_id)
        arm = request.arm or self._settings.default_arm
        self._check_moves(arm)
        timeout_s = min(request.timeout.ToMicroseconds() / times.MICROS, MAX_BARRIER_WAIT_S)
        timeout_s = remaining_s(context, timeout_s if request.HasField("timeout") else MAX_BARRIER_WAIT_S)
        if timeout_s <= 0:
            raise DeadlineSpent("the timeout must be positive")
        passed = await self._barriers.wait(arm, request.barrier_id, timeout_s)
        return ranking_pb2.RankingServiceWaitForBarrierResponse(
            model=passed.model, passed_at=times.from_us(passed.passed_us)
        )

    def _check_moves(self, arm: str) -> None:
        follower = next((follower for follower in self._arms.all() if follower.arm == arm), None)
        if follower is None:
            raise NotFound(f"arm {arm[:64]} is not loaded")
        if follower.slot.state is SlotState.PINNED:
            raise Conflict(f"arm {arm} is pinned at {follower.slot.pinned_sequence}: no barrier reaches it")

    async def EmitBarrier(
        self, request: ranking_pb2.RankingServiceEmitBarrierRequest, context: grpc.aio.ServicerContext
    ) -> ranking_pb2.RankingServiceEmitBarrierResponse:
        """Writes the barrier behind all snapshots logged so far; answered when Kafka has acknowledged it."""
        _check_barrier_id(request.barrier_id)
        if not request.HasField("occurred_at"):
            raise InvalidInput.one("occurred_at", "unset", "the event time of the barrier")
        await self._snapshots.emit_barrier(request.barrier_id, times.to_us(request.occurred_at))
        return ranking_pb2.RankingServiceEmitBarrierResponse()


def _check_barrier_id(barrier_id: str) -> None:
    if not 1 <= len(barrier_id) <= MAX_BARRIER_CHARS:
        allowed = f"1 to {MAX_BARRIER_CHARS} characters"
        raise InvalidInput([FieldViolation("barrier_id", f"{len(barrier_id)} characters", allowed)])
