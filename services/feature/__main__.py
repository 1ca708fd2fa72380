"""``python -m services.feature``: wires the feature server.

Life: ports open (NOT_SERVING) -> Redis has answered, or has not in ``ready_wait_ms`` -> SERVING. On SIGTERM:
NOT_SERVING, the calls in progress end, Redis closes.
"""

from __future__ import annotations

from rec.v1 import feature_pb2_grpc
from services.contract.feature_sets import feature_set
from services.feature import metrics
from services.feature.barriers import BarrierWatch
from services.feature.breaker import Breaker
from services.feature.item_table import ItemTable
from services.feature.layout import Layout
from services.feature.servicer import FeatureServicer
from services.feature.settings import FeatureSettings
from services.feature.store import FeatureStore
from services.runtime import redis_client
from services.runtime.clock import WallClock
from services.runtime.grpc_server import GrpcServer
from services.runtime.process import Process, run
from services.runtime.settings import load
from services.runtime.telemetry import freeze_after_load

SERVICE = "rec.v1.FeatureService"


async def start(settings: FeatureSettings, process: Process) -> GrpcServer:
    """Starts the feature server inside a process; returns its server, whose ports answer already."""
    client = redis_client.connect(settings.redis)
    process.push_close("redis", client.aclose)
    layout = Layout(feature_set(settings.feature_set))
    table = (
        ItemTable(layout, settings.near_items, settings.near_age_ms / 1000) if settings.near_items else None
    )
    store = FeatureStore(
        layout,
        settings.redis,
        max_reads=settings.max_reads,
        breaker=Breaker(settings.breaker_failures, settings.breaker_pause_ms / 1000),
        telling_s=settings.breaker_timeout_ms / 1000,
        table=table,
    )
    process.push_close("redis reader", store.close)
    barriers = BarrierWatch(client, settings.max_barrier_waits, settings.barrier_poll_ms / 1000)
    process.spawn(barriers.run(), "barriers")
    servicer = FeatureServicer(settings, layout, store, barriers, WallClock())
    add = feature_pb2_grpc.add_FeatureServiceServicer_to_server
    server = GrpcServer(settings.grpc, process, [(add, servicer, SERVICE)])
    await server.start()

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
