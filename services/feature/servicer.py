"""FeatureService: answers defaults, and says so, rather than fail or come late."""

from __future__ import annotations

import time

import grpc

from rec.v1 import feature_pb2_grpc
from rec.v1.feature_pb2 import (
    DescribeFeaturesRequest,
    DescribeFeaturesResponse,
    FeatureServiceWaitForBarrierRequest,
    FeatureServiceWaitForBarrierResponse,
    GetFeaturesRequest,
    GetFeaturesResponse,
    ListFeatureViewsRequest,
    ListFeatureViewsResponse,
)
from rec.v1.provenance_pb2 import Degradation
from services.contract import times
from services.contract.errors import DeadlineSpent, Unavailable
from services.feature import answer, metrics, query
from services.feature.barriers import BarrierWatch
from services.feature.layout import Layout
from services.feature.settings import FeatureSettings
from services.feature.store import FeatureStore, nothing
from services.runtime.clock import WallClock
from services.runtime.grpc_client import remaining_s

SOURCE = "feature"


class FeatureServicer(feature_pb2_grpc.FeatureServiceServicer):
    """One per process."""

    def __init__(
        self,
        settings: FeatureSettings,
        layout: Layout,
        store: FeatureStore,
        barriers: BarrierWatch,
        wall: WallClock,
    ) -> None:
        self._layout = layout
        self._default_s = settings.default_deadline_ms / 1000
        self._max_s = settings.max_deadline_ms / 1000
        self._share = settings.store_share
        self._store = store
        self._barriers = barriers
        self._wall = wall

    async def GetFeatures(
        self, request: GetFeaturesRequest, context: grpc.aio.ServicerContext
    ) -> GetFeaturesResponse:
        """See the proto."""
        asked = query.parse(request, self._wall.now_us())
        degraded: str | None = None
        try:
            limit_s = self._default_s if context.time_remaining() is None else self._max_s
            stored = await self._store.read(asked, remaining_s(context, limit_s) * self._share)
        except DeadlineSpent:
            stored, degraded = nothing(self._layout, asked), "deadline"
        except Unavailable:
            stored, degraded = nothing(self._layout, asked), "unavailable"
        started = time.perf_counter()
        response = answer.build(self._layout, asked, stored)
        metrics.ENCODE_SECONDS.observe(time.perf_counter() - started)
        if degraded is not None:
            response.degraded.append(Degradation(source=SOURCE, reason=degraded))
        self._count(response, degraded)
        return response

    def _count(self, response: GetFeaturesResponse, degraded: str | None) -> None:
        metrics.ITEMS.inc(len(response.missing_items))
        if degraded is not None:
            metrics.DEGRADED.labels(degraded).inc()
            return
        metrics.MISSING_ITEMS.inc(response.missing_items.count(1))
        metrics.MISSING_USERS.inc(response.missing_user)

    async def DescribeFeatures(
        self, request: DescribeFeaturesRequest, context: grpc.aio.ServicerContext
    ) -> DescribeFeaturesResponse:
        """See the proto."""
        return answer.describe(self._layout.feature_set)

    async def ListFeatureViews(
        self, request: ListFeatureViewsRequest, context: grpc.aio.ServicerContext
    ) -> ListFeatureViewsResponse:
        """See the proto."""
        return answer.list_views(self._layout.feature_set)

    async def WaitForBarrier(
        self, request: FeatureServiceWaitForBarrierRequest, context: grpc.aio.ServicerContext
    ) -> FeatureServiceWaitForBarrierResponse:
        """See the proto."""
        given_s = request.timeout.ToNanoseconds() / 1e9 if request.HasField("timeout") else None
        wait_s = query.barrier_wait_s(request.barrier_id, given_s)
        passed_us = await self._barriers.wait(request.barrier_id, remaining_s(context, wait_s))
        await self._store.fence()
        return FeatureServiceWaitForBarrierResponse(passed_at=times.from_us(passed_us))
