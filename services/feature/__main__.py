"""``python -m services.feature``: wires the feature server.

Life: ports open (NOT_SERVING) -> kernels are compiled, or loaded -> Redis
has answered, or has not in ``ready_wait_ms`` -> SERVING. On SIGTERM:
NOT_SERVING, the calls in progress end, Redis closes.
"""

from __future__ import annotations

import asyncio

from services.contract.feature_sets import feature_set
from services.feature import metrics
from services.feature.answer import warm_up
from services.feature.barriers import BarrierWatch
from services.feature.breaker import Breaker
from services.feature.near_cache import NearCache
from services.feature.program import Layout
from services.feature.servicer import SERVICE, FeatureServicer, add_to_server
from services.feature.settings import FeatureSettings
from services.feature.store import FeatureStore
from services.runtime import redis_client
from services.runtime.clock import WallClock
from services.runtime.grpc_server import GrpcServer
from services.runtime.process import Process, run
from services.runtime.settings import load
from services.runtime.telemetry import freeze_after_load


async def start(settings: FeatureSettings, process: Process) -> GrpcServer:
    """Starts the feature server inside a process; returns its server, whose ports answer already."""
    layout = Layout(feature_set(settings.feature_set))
    client = redis_client.connect(settings.redis)
    process.push_close("redis", client.aclose)
    near_s = settings.near_age_ms / 1000
    store = FeatureStore(
        settings.redis,
        layout,
        max_reads=settings.max_reads,
        breaker=Breaker(settings.breaker_failures, settings.breaker_pause_ms / 1000),
        telling_s=settings.breaker_timeout_ms / 1000,
        near=NearCache(layout, settings.near_items, near_s) if settings.near_items else None,
    )
    process.push_close("redis reader", store.close)
    barriers = BarrierWatch(client, settings.max_barrier_waits, settings.barrier_poll_ms / 1000)
    process.spawn(barriers.run(), "barriers")
    servicer = FeatureServicer(settings, layout, store, barriers, WallClock())
    server = GrpcServer(settings.grpc, process, [(add_to_server, servicer, SERVICE)])
    await server.start()
    await asyncio.to_thread(warm_up, layout)

    async def declare() -> None:
        if not await store.reachable(settings.ready_wait_ms / 1000):
            metrics.log.warning("serving without redis")
        freeze_after_load()
        server.set_serving(True)

    process.spawn(declare(), "readiness")
    return server


def main() -> None:
    """Entry point."""
    settings = load(FeatureSettings)

    async def wire(process: Process) -> None:
        await start(settings, process)

    run(settings, wire)


if __name__ == "__main__":
    main()
