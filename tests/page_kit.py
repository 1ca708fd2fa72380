"""The page in this process, and neighbours for it to ask: real servers that say what a test tells them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from http.server import ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, MetricsHandler

from loadgen.scenario_service import ScenarioServicer, serving
from loadgen.world import World
from loadgen.world_clock import WorldClock
from loadgen.world_config import WorldConfig
from local.ports import free_ports
from rec.model.v1 import model_pb2
from rec.v1 import (
    feature_pb2,
    feature_pb2_grpc,
    gateway_pb2,
    gateway_pb2_grpc,
    release_pb2,
    release_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
)
from rec.v1.provenance_pb2 import Degradation, RecallSource
from services.contract.errors import InvalidInput
from services.contract.times import MICROS
from services.page.__main__ import Started, start
from services.page.settings import MetricsTargets, Settings, WebSettings
from services.runtime.grpc_guard import Guard
from services.runtime.process import Process
from services.runtime.settings import GrpcServerSettings

CLOCK = WorldClock(1_000_000_000 * MICROS)
NOBODY = "127.0.0.1:1"


class MetricsPage:
    """A process's metrics over HTTP, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        handler = MetricsHandler.factory(self.registry)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.target = f"127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def gauge(self, name: str, *labels: str) -> Gauge:
        return Gauge(name, "x", labels, registry=self.registry)

    def counter(self, name: str, *labels: str) -> Counter:
        return Counter(name, "x", labels, registry=self.registry)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class Gateway(gateway_pb2_grpc.GatewayServiceServicer):
    """Gives every user the same list; ``held`` keeps answers back until it is set."""

    def __init__(self) -> None:
        self.asked = 0
        self.held = asyncio.Event()
        self.held.set()

    async def Recommend(self, request: Any, context: Any) -> gateway_pb2.RecommendResponse:
        if request.arm not in ("", "online"):
            raise InvalidInput.one("arm", request.arm, "one of online")
        self.asked += 1
        await self.held.wait()
        answer = gateway_pb2.RecommendResponse(request_id="r1", candidates=1000)
        for n in range(request.n):
            sources = [RecallSource.RECALL_SOURCE_VECTOR, RecallSource.RECALL_SOURCE_CO_CLICK]
            answer.items.add(item_id=2**64 - 1 - n, score=0.5 / (n + 1), sources=sources)
        answer.provenance.arm, answer.provenance.scored, answer.provenance.replica = "online", True, "r-0"
        answer.provenance.model.lineage.generation, answer.provenance.model.sequence = 2, 41
        answer.provenance.staleness.FromMilliseconds(700)
        answer.provenance.degraded.append(Degradation(source="recall.fresh", reason="stale"))
        return answer


class Features(feature_pb2_grpc.FeatureServiceServicer):
    """Knows one thing of everybody."""

    async def ExplainFeatures(self, request: Any, context: Any) -> feature_pb2.ExplainFeaturesResponse:
        answer = feature_pb2.ExplainFeaturesResponse()
        known = answer.features.add(name="item_clicks_1m", view="item_activity", value=7.0)
        known.window.FromSeconds(60)
        known.age.FromSeconds(3)
        answer.features.add(name="user_clicks", view="user_activity", is_default=True)
        return answer

    async def DescribeFeatures(self, request: Any, context: Any) -> feature_pb2.DescribeFeaturesResponse:
        answer = feature_pb2.DescribeFeaturesResponse()
        answer.item_columns.add(name="item_clicks_1m", description="clicks on the item")
        return answer


class Releases(release_pb2_grpc.ReleaseServiceServicer):
    """Two generations, of which the second serves."""

    async def ListReleases(self, request: Any, context: Any) -> release_pb2.ListReleasesResponse:
        answer = release_pb2.ListReleasesResponse()
        for number, state in ((1, "superseded"), (2, "promoted")):
            answer.generations.add(generation=number, life=model_pb2.Life(state=state))
        lineage = model_pb2.Lineage(generation=2, policy="online")
        answer.releases.add(arm="online", lineage=lineage, state=model_pb2.RELEASE_STATE_SERVING)
        frozen = answer.releases.add(arm="frozen", lineage=lineage, state=model_pb2.RELEASE_STATE_SERVING)
        frozen.pinned_sequence = 0
        return answer


class Worker(worker_pb2_grpc.WorkerServiceServicer):
    """Two partitions, five and two records behind."""

    async def GetWorkerStatus(self, request: Any, context: Any) -> worker_pb2.GetWorkerStatusResponse:
        answer = worker_pb2.GetWorkerStatusResponse(worker="joiner", state="running")
        for partition, position in ((0, 95), (1, 98)):
            answer.partitions.add(topic="actions", partition=partition, position=position, end=100)
        return answer


class House:
    """All of them, and a page that asks them. Nobody plays the pipeline's and the trainer's status."""

    def __init__(self) -> None:
        self.world = World(WorldConfig(items=20_000, users=2_000))
        self.gateway = Gateway()
        self.pages = {name: MetricsPage() for name in ("gateway", "ranking", "release")}
        self.page: Started
        self.process: Process

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.page.web_port}"

    def true_p(self) -> float:
        """Of the item that celebrity is about."""
        return float(self.world.true_p(np.array([0]), np.array([777]), np.array([10.0]))[0])


async def _services(gateway: Gateway) -> tuple[grpc.aio.Server, str]:
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    guard = Guard(64)
    guard.stand_before(server)
    gateway_pb2_grpc.add_GatewayServiceServicer_to_server(gateway, guard)
    feature_pb2_grpc.add_FeatureServiceServicer_to_server(Features(), guard)
    release_pb2_grpc.add_ReleaseServiceServicer_to_server(Releases(), guard)
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(Worker(), guard)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


@asynccontextmanager
async def house(**given: Any) -> AsyncIterator[House]:
    """``given``: settings of the page."""
    made = House()
    async with AsyncExitStack() as held:
        for one in made.pages.values():
            held.callback(one.close)
        server, target = await _services(made.gateway)
        held.push_async_callback(server.stop, 0)
        scenarios = f"127.0.0.1:{free_ports(1)[0]}"
        servicer = ScenarioServicer(made.world, CLOCK, lambda: CLOCK.event_us(10.0))
        await held.enter_async_context(serving(servicer, scenarios))
        absent = dict.fromkeys(MetricsTargets.model_fields, "")
        wanted = {
            "grpc": GrpcServerSettings(port=0, admin_port=0, metrics_port=0),
            "web": WebSettings(port=0),
            "metrics": MetricsTargets(**absent | {name: one.target for name, one in made.pages.items()}),
            "gateway_target": target,
            "feature_target": target,
            "release_target": target,
            "joiner_target": target,
            "feature_pipeline_target": NOBODY,
            "trainer_target": "",
            "scenario_target": scenarios,
            "interval_ms": 300,
            "timeout_ms": 250,
            "idle_interval_ms": 300,
        }
        settings = Settings(**wanted | given)
        made.process = Process(settings)
        held.push_async_callback(made.process.close)
        made.page = await start(settings, made.process)
        yield made
