"""FeatureService: answers defaults, and says so, rather than fail or come late."""

from __future__ import annotations

import time

import grpc

from rec.v1 import feature_pb2_grpc
from rec.v1.feature_pb2 import (
    DescribeFeaturesRequest,
    DescribeFeaturesResponse,
    ExplainFeaturesRequest,
    ExplainFeaturesResponse,
    FeatureServiceWaitForBarrierRequest,
    FeatureServiceWaitForBarrierResponse,
    GetFeaturesRequest,
    ListFeatureViewsRequest,
    ListFeatureViewsResponse,
)
from rec.v1.provenance_pb2 import Degradation
from services.contract import times
from services.contract.errors import DeadlineSpent, Unavailable
from services.contract.view_registry import FeatureSet
from services.feature import catalogue, explain, metrics, query
from services.feature.barriers import BarrierWatch
from services.feature.serving import Serving
from services.feature.settings import FeatureSettings
from services.feature.store import FeatureStore
from services.runtime.clock import WallClock
from services.runtime.grpc_client import remaining_s

SOURCE = "feature"
SERVICE = "rec.v1.FeatureService"


def add_to_server(servicer: FeatureServicer, server: grpc.aio.Server) -> None:
    """As the generated function, but GetFeatures gives bytes: most of an answer are columns that need no
    message around them first. Of two handlers of a method the one registered last counts."""
    feature_pb2_grpc.add_FeatureServiceServicer_to_server(servicer, server)
    handler = grpc.unary_unary_rpc_method_handler(
        servicer.GetFeatures, request_deserializer=GetFeaturesRequest.FromString
    )
    server.add_registered_method_handlers(SERVICE, {"GetFeatures": handler})


class FeatureServicer(feature_pb2_grpc.FeatureServiceServicer):
    """One per process."""

    def __init__(
        self,
        settings: FeatureSettings,
        serving: Serving,
        barriers: BarrierWatch,
        wall: WallClock,
    ) -> None:
        self._default_s = settings.default_deadline_ms / 1000
        self._max_s = settings.max_deadline_ms / 1000
        self._share = settings.store_share
        self._serving = serving
        self._barriers = barriers
        self._wall = wall

    @property
    def _store(self) -> FeatureStore:
        return self._serving.store

    @property
    def _features(self) -> FeatureSet:
        return self._serving.features

    async def GetFeatures(self, request: GetFeaturesRequest, context: grpc.aio.ServicerContext) -> bytes:
        """See the proto; serialised (``add_to_server``)."""
        asked = query.parse(request, self._wall.now_us())
        degraded: str | None = None
        try:
            left_s = remaining_s(context, self._default_s, longest_s=self._max_s)
            reading = await self._store.read(asked, left_s * self._share)
        except DeadlineSpent:
            reading, degraded = self._store.nothing(asked), "deadline"
        except Unavailable:
            reading, degraded = self._store.nothing(asked), "unavailable"
        started = time.perf_counter()
        answer = reading.build([Degradation(source=SOURCE, reason=degraded)] if degraded is not None else ())
        metrics.ENCODE_SECONDS.observe(time.perf_counter() - started)
        metrics.ITEMS.inc(len(asked.item_ids))
        if degraded is not None:
            metrics.DEGRADED.labels(degraded).inc()
        elif answer.missing_items or answer.missing_user:
            metrics.MISSING_ITEMS.inc(answer.missing_items)
            metrics.MISSING_USERS.inc(answer.missing_user)
        return answer.data

    async def DescribeFeatures(
        self, request: DescribeFeaturesRequest, context: grpc.aio.ServicerContext
    ) -> DescribeFeaturesResponse:
        """See the proto."""
        return catalogue.describe(self._features)

    async def ListFeatureViews(
        self, request: ListFeatureViewsRequest, context: grpc.aio.ServicerContext
    ) -> ListFeatureViewsResponse:
        """See the proto."""
        return catalogue.list_views(self._serving.name, self._features)

    async def ExplainFeatures(
        self, request: ExplainFeaturesRequest, context: grpc.aio.ServicerContext
    ) -> ExplainFeaturesResponse:
        """See the proto."""
        features, store = self._features, self._store
        asked = explain.parse(request, features, self._wall.now_us())
        limit_s = remaining_s(context, self._max_s)
        states = await store.states_of(asked.item_keys(features), limit_s)
        others = asked.other_keys(features, states)
        states |= await store.states_of(others, limit_s)
        return explain.explained(features, asked, states)

    async def WaitForBarrier(
        self, request: FeatureServiceWaitForBarrierRequest, context: grpc.aio.ServicerContext
    ) -> FeatureServiceWaitForBarrierResponse:
        """See the proto."""
        given_s = request.timeout.ToNanoseconds() / 1e9 if request.HasField("timeout") else None
        wait_s = query.barrier_wait_s(request.barrier_id, given_s)
        passed_us = await self._barriers.wait(request.barrier_id, remaining_s(context, wait_s))
        await self._store.fence()
        return FeatureServiceWaitForBarrierResponse(passed_at=times.from_us(passed_us))
