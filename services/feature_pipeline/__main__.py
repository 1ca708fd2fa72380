"""``python -m services.feature_pipeline``: wires both stages. With a command: see commands.

Life: ports open (NOT_SERVING) -> Kafka and the catalogue's end -> both groups joined -> SERVING. On SIGTERM:
the stages end where they are (what was not committed is read again and dropped by the marks), readers leave
their groups, the producer flushes, Redis closes.
"""

from __future__ import annotations

import sys

from rec.v1 import worker_pb2_grpc
from services.contract import topics
from services.contract.feature_sets import feature_set
from services.contract.view_growth import GrowingSet
from services.feature_pipeline.catalog import Catalog
from services.feature_pipeline.commands import COMMANDS, command
from services.feature_pipeline.fold_worker import FoldWorker
from services.feature_pipeline.new_views import Replays
from services.feature_pipeline.served_views import ServedViews
from services.feature_pipeline.settings import FeaturePipelineSettings
from services.feature_pipeline.split_worker import SplitWorker
from services.feature_pipeline.state_store import StateStore
from services.feature_pipeline.status import Status
from services.runtime import redis_client
from services.runtime.grpc_server import GrpcServer
from services.runtime.kafka_consumer import LogReader
from services.runtime.kafka_producer import Producer
from services.runtime.kafka_tail import LogTail
from services.runtime.process import Process, run
from services.runtime.settings import load
from services.runtime.telemetry import freeze_after_load

SERVICE = "rec.v1.WorkerService"


async def start(settings: FeaturePipelineSettings, process: Process) -> GrpcServer:
    """Starts both stages inside a process; returns the server, whose ports answer already."""
    client = redis_client.connect(settings.redis)
    process.push_close("redis", client.aclose)
    producer = Producer(settings.kafka, settings.name)
    process.push_close("producer", producer.stop)
    catalog_reader = LogReader(settings.kafka, f"{settings.name} catalog", slow=True)
    process.push_close("catalog reader", catalog_reader.stop)
    catalog = Catalog(catalog_reader, settings.max_catalog_items, settings.retry_ms / 1000)
    split = SplitWorker(settings, catalog, producer)
    process.push_close("split reader", split.reader.stop)
    growing = GrowingSet(settings.feature_set, feature_set(settings.feature_set))
    views = LogTail(settings.kafka, f"{settings.name} views", topics.FEATURE_VIEWS.name, growing.take)
    process.push_close("views reader", views.stop)
    replays = Replays(LogReader(settings.kafka, f"{settings.name} replays"))
    process.push_close("replay reader", replays.reader.stop)
    store = StateStore(client)
    fold = FoldWorker(settings, store, producer, growing=growing, tail=views, replays=replays)
    process.push_close("fold reader", fold.reader.stop)
    status = Status(settings.name, catalog, split, fold, lambda: server.health.serving)
    add = worker_pb2_grpc.add_WorkerServiceServicer_to_server
    server = GrpcServer(settings.grpc, process, [(add, status, SERVICE)])
    await server.start()

    async def work() -> None:
        await producer.start()
        await catalog_reader.start()
        await catalog.load()
        await views.start()
        await replays.reader.start()
        await split.reader.start()
        await fold.reader.start()
        freeze_after_load()
        process.spawn(catalog.tail(), "catalogue")
        process.spawn(split.run(), "split")
        process.spawn(views.run(), "views")
        process.spawn(fold.run(), "fold")
        process.spawn(ServedViews(settings.kafka, store, growing, views).run(), "served views")
        process.spawn(status.watch_lag(), "lag")
        process.spawn(fold.watch_redis(), "redis gauges")
        server.set_serving(True)

    process.spawn(work(), "start")
    return server


def main() -> None:
    """Entry point."""
    if sys.argv[1:] and sys.argv[1] in COMMANDS:
        raise SystemExit(command(sys.argv[1], sys.argv[2:]))
    settings = load(FeaturePipelineSettings)

    async def wire(process: Process) -> None:
        await start(settings, process)

    run(settings, wire)


if __name__ == "__main__":
    main()
