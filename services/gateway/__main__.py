"""``python -m services.gateway``: wires the gateway.

Life: channels open -> ports open (NOT_SERVING) -> recall and ranking have said SERVING, and which arms share
the users is known (or Kafka is away) -> SERVING. On SIGTERM: NOT_SERVING, the requests in progress end, the
reader of model-releases and the channels close.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import grpc

from rec.v1 import (
    feature_pb2_grpc,
    gateway_pb2_grpc,
    ranking_pb2_grpc,
    recall_pb2_grpc,
)
from services.contract import topics
from services.contract.experiments import Experiments
from services.gateway import readiness
from services.gateway.breaker import Breaker
from services.gateway.dependency import Call, Dependency
from services.gateway.fallback import FallbackPool
from services.gateway.servicer import GatewayServicer
from services.gateway.settings import GatewaySettings
from services.runtime.clock import RunClock, WallClock
from services.runtime.grpc_client import channel
from services.runtime.grpc_server import GrpcServer
from services.runtime.kafka_tail import LogTail
from services.runtime.process import Process, run
from services.runtime.settings import load
from services.runtime.telemetry import freeze_after_load

SERVICE = "rec.v1.GatewayService"


async def start(settings: GatewaySettings, process: Process) -> GrpcServer:
    """Starts the gateway inside a process; returns its server, whose ports answer already."""

    def connect(target: str, service: str) -> grpc.aio.Channel:
        opened = channel(target, settings.grpc_client, settings.tls, idempotent=[service])
        process.push_close(f"channel to {target}", opened.close)
        return opened

    def dependency(name: str, call: Call) -> Dependency:
        breaker = Breaker(settings.breaker_failures, settings.breaker_pause_ms / 1000)
        return Dependency(name, call, breaker, settings.breaker_timeout_ms / 1000)

    recall = connect(settings.recall_target, "rec.v1.RecallService")
    feature = connect(settings.feature_target, "rec.v1.FeatureService")
    ranking = connect(settings.ranking_target, "rec.v1.RankingService")
    experiments = Experiments()
    servicer = GatewayServicer(
        settings,
        recall=dependency("recall", recall_pb2_grpc.RecallServiceStub(recall).Retrieve),
        feature=dependency("feature", feature_pb2_grpc.FeatureServiceStub(feature).GetFeatures),
        ranking=dependency("ranking", ranking_pb2_grpc.RankingServiceStub(ranking).Rank),
        pool=FallbackPool(settings.fallback_items, settings.fallback_refresh_ms / 1000),
        experiments=experiments,
        wall=WallClock(),
        run_clock=RunClock(settings.time_scale),
    )
    add = gateway_pb2_grpc.add_GatewayServiceServicer_to_server
    server = GrpcServer(settings.grpc, process, [(add, servicer, SERVICE)])
    await server.start()
    tail = LogTail(settings.kafka, f"{settings.name}-releases", topics.MODEL_RELEASES.name, experiments.take)
    process.push_close("releases reader", tail.stop)
    known = asyncio.Event()

    # No failure of Kafka ends it: all users get the default arm, or the one known last.
    async def follow() -> None:
        await tail.until_read()
        known.set()
        await tail.run()

    process.spawn(follow(), "releases")

    async def declare() -> None:
        needed = {"recall": recall, "ranking": ranking}
        await readiness.until_ready(needed, settings.ready_wait_ms / 1000)
        with suppress(TimeoutError):
            await asyncio.wait_for(known.wait(), settings.assignment_wait_ms / 1000)
        freeze_after_load()
        server.set_serving(True)

    process.spawn(declare(), "readiness")
    return server


def main() -> None:
    """Entry point."""
    settings = load(GatewaySettings)

    async def wire(process: Process) -> None:
        await start(settings, process)

    run(settings, wire)


if __name__ == "__main__":
    main()
