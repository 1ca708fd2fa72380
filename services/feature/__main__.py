"""``python -m services.feature``: wires the feature server.

Life: ports open (NOT_SERVING) -> kernels are compiled, or loaded -> feature-views has been read to its end,
or has not in ``views_wait_ms`` -> Redis has answered, or has not in ``ready_wait_ms`` -> SERVING. On SIGTERM:
NOT_SERVING, the calls in progress end, Redis closes.
"""

from __future__ import annotations

import asyncio

from services.contract import topics
from services.contract.feature_sets import feature_set
from services.contract.view_growth import GrowingSet
from services.feature import metrics
from services.feature.answer import warm_up
from services.feature.barriers import BarrierWatch
from services.feature.breaker import Breaker
from services.feature.near_cache import NearCache
from services.feature.program import Layout
from services.feature.servicer import SERVICE, FeatureServicer, add_to_server
from services.feature.serving import Serving
from services.feature.settings import FeatureSettings
from services.feature.store import FeatureStore
from services.runtime import redis_client
from services.runtime.clock import WallClock
from services.runtime.grpc_server import GrpcServer
from services.runtime.kafka_tail import LogTail
from services.runtime.process import Process, run
from services.runtime.settings import load
from services.runtime.telemetry import freeze_after_load


async def start(settings: FeatureSettings, process: Process) -> GrpcServer:
    """Starts the feature server inside a process; returns its server, whose ports answer already."""
    growing = GrowingSet(settings.feature_set, feature_set(settings.feature_set))
    client = redis_client.connect(settings.redis)
    process.push_close("redis", client.aclose)
    near_s = settings.near_age_ms / 1000
    breaker = Breaker(settings.breaker_failures, settings.breaker_pause_ms / 1000)

    def open_store(layout: Layout) -> FeatureStore:
        return FeatureStore(
            settings.redis,
            layout,
            max_reads=settings.max_reads,
            breaker=breaker,
            telling_s=settings.breaker_timeout_ms / 1000,
            near=NearCache(layout, settings.near_items, near_s) if settings.near_items else None,
        )

    serving = Serving(growing, open_store, settings.max_deadline_ms / 1000)
    process.push_close("redis reader", serving.close)
    barriers = BarrierWatch(client, settings.max_barrier_waits, settings.barrier_poll_ms / 1000)
    process.spawn(barriers.run(), "barriers")
    servicer = FeatureServicer(settings, serving, barriers, WallClock())
    server = GrpcServer(settings.grpc, process, [(add_to_server, servicer, SERVICE)])
    await server.start()
    await asyncio.to_thread(warm_up, serving.layout)
    if settings.follow_views:
        views = LogTail(settings.kafka, f"{settings.name} views", topics.FEATURE_VIEWS.name, growing.take)
        process.push_close("views reader", views.stop)
        process.spawn(serving.follow(views), "feature views")

    async def declare() -> None:
        if settings.follow_views:
            await caught_up(serving, settings.views_wait_ms / 1000)
        if not await serving.store.reachable(settings.ready_wait_ms / 1000):
            metrics.log.warning("serving without redis")
        freeze_after_load()
        server.set_serving(True)

    process.spawn(declare(), "readiness")
    return server


async def caught_up(serving: Serving, wait_s: float) -> None:
    """Returns when it is known what is served, or after ``wait_s``."""
    try:
        async with asyncio.timeout(wait_s):
            await serving.caught_up.wait()
    except TimeoutError:
        metrics.log.warning("serving without knowing of added views")


def main() -> None:
    """Entry point."""
    settings = load(FeatureSettings)

    async def wire(process: Process) -> None:
        await start(settings, process)

    run(settings, wire)


if __name__ == "__main__":
    main()
