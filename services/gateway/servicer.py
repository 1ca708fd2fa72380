"""GatewayService: recall -> features -> ranking, each with a part of the deadline; what is missing is named.

What a missing part costs the answer:

    recall    the fallback pool stands in (UNAVAILABLE only when there is nothing at all to recommend)
    feature   every column at its default
    ranking   recall's own order, unscored
    the arm   that the user is assigned to: the default arm serves

Only the caller's own faults are errors: a bad request, an unknown arm, a deadline that is over. A request
that names no arm gets the one that its user is assigned to (contract.experiments).
"""

from __future__ import annotations

import time
import uuid

import grpc

from rec.v1 import gateway_pb2_grpc
from rec.v1.feature_pb2 import GetFeaturesRequest, GetFeaturesResponse
from rec.v1.gateway_pb2 import RecommendRequest, RecommendResponse
from rec.v1.provenance_pb2 import Degradation
from rec.v1.ranking_pb2 import RankRequest, RankResponse
from rec.v1.recall_pb2 import RetrieveRequest, RetrieveResponse
from services.contract import times
from services.contract.errors import Unavailable
from services.contract.experiments import Assigned, Experiments
from services.contract.feature_sets import feature_set
from services.gateway import answers, metrics, response, validation
from services.gateway.budget import Budget
from services.gateway.defaults import Defaults
from services.gateway.dependency import Dependency, Missing
from services.gateway.fallback import FallbackPool
from services.gateway.settings import GatewaySettings
from services.runtime.clock import RunClock, WallClock
from services.runtime.grpc_client import remaining_s


class GatewayServicer(gateway_pb2_grpc.GatewayServiceServicer):
    """One per process; holds no state of a request."""

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        recall: Dependency,
        feature: Dependency,
        ranking: Dependency,
        pool: FallbackPool,
        experiments: Experiments,
        wall: WallClock,
        run_clock: RunClock,
    ) -> None:
        self._settings = settings
        self._shares = settings.shares()
        self._feature_set = feature_set(settings.feature_set)
        self._defaults = Defaults(self._feature_set)
        self._recall, self._feature, self._ranking = recall, feature, ranking
        self._pool = pool
        self._experiments = experiments
        self._wall, self._run_clock = wall, run_clock

    async def Recommend(
        self, request: RecommendRequest, context: grpc.aio.ServicerContext
    ) -> RecommendResponse:
        """See the proto; degrades instead of failing."""
        budget = self._budget(context)
        wish = self._parse(request)
        degraded: list[Degradation] = []
        candidates = await self._candidates(wish, budget, degraded)
        columns = await self._features(wish, candidates, budget, degraded)
        assigned = Assigned(wish.arm, "asked") if wish.arm else self._experiments.assigned(wish.user_id)
        chosen, ranked = await self._rank(wish, candidates, columns, budget, degraded, assigned=assigned)
        for part in degraded:
            metrics.DEGRADED.labels(part.source, part.reason).inc()
        return response.build(
            wish,
            candidates,
            chosen,
            ranked=ranked,
            degraded=degraded,
            schema_hash=columns.schema_hash,
            served_us=self._wall.now_us(),
        )

    def _budget(self, context: grpc.aio.ServicerContext) -> Budget:
        settings = self._settings
        left_s = remaining_s(
            context, settings.default_deadline_ms / 1000, longest_s=settings.max_deadline_ms / 1000
        )
        return Budget(time.monotonic() + left_s, settings.reserve_ms / 1000)

    def _parse(self, request: RecommendRequest) -> validation.Wish:
        run_us = self._run_clock.now_us()
        # A replay's clock moves only with its events: a wall time among them would end all open windows.
        replay_us = run_us if not self._run_clock.runs else None
        wish = validation.parse(
            request,
            bounds=self._settings.time_bounds(run_us),
            now_us=self._wall.now_us() if replay_us is None else replay_us,
            new_request_id=uuid.uuid4().hex,
        )
        self._run_clock.observe(wish.occurred_us)
        return wish

    async def _candidates(
        self, wish: validation.Wish, budget: Budget, degraded: list[Degradation]
    ) -> answers.Candidates:
        if wish.given is not None:
            return answers.Candidates.given(wish.given)
        request = RetrieveRequest(request_id=wish.request_id, user_id=wish.user_id, n=wish.candidates)
        times.set_us(request.occurred_at, wish.occurred_us)

        def read(answer: RetrieveResponse) -> answers.Candidates:
            candidates = answers.read_candidates(answer, wish.candidates)
            degraded.extend(answer.degraded)
            return candidates

        now = time.monotonic()
        try:
            candidates = await self._recall.ask(request, budget.timeout_s(self._shares.recall, now), read)
        except Missing as missing:
            return self._fall_back(wish, missing.reason, degraded)
        if not len(candidates.ids):
            return self._fall_back(wish, "empty", degraded)
        self._pool.observe(candidates.ids, (candidates.tags & answers.POPULAR_BIT) > 0, now)
        return candidates

    def _fall_back(
        self, wish: validation.Wish, reason: str, degraded: list[Degradation]
    ) -> answers.Candidates:
        """Items of the pool; raises Unavailable when it is empty."""
        degraded.append(Degradation(source="recall", reason=reason))
        ids = self._pool.pick(wish.candidates)
        if not len(ids):
            metrics.NOTHING.inc()
            raise Unavailable(
                f"nothing to recommend: recall is missing ({reason}), the fallback pool is empty"
            )
        metrics.FALLBACK.inc()
        return answers.Candidates.fallback(ids)

    async def _features(
        self,
        wish: validation.Wish,
        candidates: answers.Candidates,
        budget: Budget,
        degraded: list[Degradation],
    ) -> answers.Features:
        request = GetFeaturesRequest(
            request_id=wish.request_id, user_id=wish.user_id, item_ids=candidates.packed
        )
        times.set_us(request.occurred_at, wish.occurred_us)
        items = len(candidates.ids)

        def read(answer: GetFeaturesResponse) -> answers.Features:
            columns = answers.read_features(answer, self._feature_set, items)
            degraded.extend(answer.degraded)
            metrics.UNKNOWN_USERS.inc(answer.missing_user)
            metrics.UNKNOWN_ITEMS.inc(answer.missing_items.count(1))
            return columns

        try:
            return await self._feature.ask(
                request, budget.timeout_s(self._shares.feature, time.monotonic()), read
            )
        except Missing as missing:
            degraded.append(Degradation(source="feature", reason=missing.reason))
        return answers.Features(
            self._feature_set.schema_hash,
            self._defaults.user_features,
            self._defaults.item_features(items),
            degraded=True,
        )

    async def _rank(
        self,
        wish: validation.Wish,
        candidates: answers.Candidates,
        columns: answers.Features,
        budget: Budget,
        degraded: list[Degradation],
        *,
        assigned: Assigned,
    ) -> tuple[answers.Chosen, RankResponse | None]:
        request = RankRequest(
            request_id=wish.request_id,
            user_id=wish.user_id,
            n=wish.n,
            item_ids=candidates.packed,
            schema_hash=columns.schema_hash,
            user_features=columns.user,
            item_features=columns.items,
            arm=assigned.arm,
            arm_assigned=not wish.arm,
            shadow_arms=wish.shadow_arms,
            features_degraded=columns.degraded,
        )
        times.set_us(request.occurred_at, wish.occurred_us)
        metrics.CANDIDATES.inc(len(candidates.ids))

        def read(answer: RankResponse) -> tuple[answers.Chosen, RankResponse]:
            return answers.read_ranked(answer, candidates, wish.n), answer

        try:
            chosen, answer = await self._ranking.ask(
                request, budget.timeout_s(self._shares.ranking, time.monotonic()), read
            )
        except Missing as missing:
            degraded.append(Degradation(source="ranking", reason=missing.reason))
            metrics.UNSCORED.inc()
            return answers.unscored(candidates, wish.n), None
        served = answer.provenance.arm
        # Named by ranking, which knows few: a client could name any.
        metrics.ARMS.labels(served, assigned.reason if assigned.arm in ("", served) else "not_loaded").inc()
        return chosen, answer
