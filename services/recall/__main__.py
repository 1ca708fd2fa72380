"""``python -m services.recall``: wires recall.

Life: Kafka readers connect -> ports open (NOT_SERVING) -> the catalogue is read to its end and the
vectors are loaded (or do not come within ``vectors_wait_ms``: then recall serves without them, and says
so in every answer) -> SERVING. On SIGTERM: NOT_SERVING, the requests in progress end, background tasks
stop, clients close.

Redis is not waited for: without it popular and co-click items are missing, and named.
"""

from __future__ import annotations

import asyncio
import os

# One core is enough for a search of 1 ms; must be set before numpy loads its BLAS.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from rec.v1 import recall_pb2_grpc
from services.contract.feature_sets import feature_set
from services.contract.signature import Trusted
from services.contract.view_clicks import last_clicks_view
from services.recall import item_lists, kernel, metrics
from services.recall.catalog_feed import CatalogFeed
from services.recall.catalogue import Catalogue
from services.recall.co_click import CoClicks
from services.recall.list_keeper import ListKeeper
from services.recall.model_feed import ModelFeed
from services.recall.near_lists import NearLists
from services.recall.popular import PopularItems
from services.recall.release_feed import ReleaseFeed
from services.recall.retriever import Retriever
from services.recall.servicer import RecallServicer
from services.recall.settings import RecallSettings
from services.recall.sorted_sets import SortedSets
from services.recall.vectors import VectorSource
from services.runtime.clock import RunClock, WallClock
from services.runtime.grpc_server import GrpcServer
from services.runtime.kafka_consumer import LogReader
from services.runtime.kafka_producer import Producer
from services.runtime.process import Process, run
from services.runtime.redis_reader import RedisReader
from services.runtime.settings import load
from services.runtime.telemetry import freeze_after_load

SERVICE = "rec.v1.RecallService"


async def start(settings: RecallSettings, process: Process) -> GrpcServer:
    """Starts recall inside a process; returns its server, whose ports answer already."""
    features = feature_set(settings.feature_set)
    wall, run_clock = WallClock(), RunClock(settings.time_scale)
    redis = RedisReader(settings.redis, settings.max_reads)
    process.push_close("redis", redis.close)
    dead_letters = Producer(settings.kafka, settings.name)
    await dead_letters.start()
    process.push_close("dead letters", dead_letters.stop)

    def event_now_us() -> int:
        seen = run_clock.now_us()
        return wall.now_us() if seen is None else seen

    vectors, catalogue = VectorSource(), Catalogue(settings.fresh_keep)
    process.push_close("vectors", vectors.close)
    sets = SortedSets(redis, settings.redis.timeout_ms / 1000)
    popular = PopularItems(
        sets,
        event_now_us,
        keep=settings.popular_keep,
        half_life_us=settings.popular_half_life_ms * 1000,
        stale_s=settings.popular_stale_ms / 1000,
    )
    releases = ReleaseFeed(await _reader(settings, process, "releases"), settings.arm)
    catalog_feed = CatalogFeed(
        await _reader(settings, process, "catalog"), dead_letters, catalogue, settings.catalog_poll_records
    )
    model_feed = ModelFeed(
        await _reader(settings, process, "deltas"),
        releases,
        vectors,
        store_uri=settings.model_store_uri,
        trusted=Trusted.read(settings.trusted_keys_file),
        stale_s=settings.vectors_stale_ms / 1000,
        lists_from_items=settings.lists_from_items,
        wall=wall,
    )
    lists = ListKeeper(vectors, from_items=settings.lists_from_items, check_s=settings.list_check_ms / 1000)
    retriever = Retriever(
        settings,
        vectors=vectors,
        popular=popular,
        catalogue=catalogue,
        co_clicks=CoClicks(
            redis,
            sets,
            last_clicks_view(features),
            settings.co_click_per_item,
            NearLists(settings.co_click_lists, settings.co_click_age_ms / 1000),
        ),
    )
    ready = asyncio.Event()
    servicer = RecallServicer(
        settings,
        retriever=retriever,
        catalogue=catalogue,
        vectors=vectors,
        run_clock=run_clock,
        is_ready=ready.is_set,
    )
    add = recall_pb2_grpc.add_RecallServiceServicer_to_server
    server = GrpcServer(settings.grpc, process, [(add, servicer, SERVICE)])
    await server.start()

    async def declare() -> None:
        await until_loaded(catalog_feed, model_feed, settings.vectors_wait_ms / 1000)
        freeze_after_load()
        ready.set()
        server.set_serving(True)

    process.spawn(popular.run(settings.popular_refresh_ms / 1000), "popular")
    process.spawn(releases.run(), "releases")
    process.spawn(catalog_feed.run(), "catalog")
    process.spawn(model_feed.run(), "model")
    process.spawn(lists.run(), "lists")
    process.spawn(declare(), "readiness")
    return server


async def _reader(settings: RecallSettings, process: Process, what: str) -> LogReader:
    reader = LogReader(settings.kafka, f"{settings.name}-{what}", slow=True)
    await reader.start()
    process.push_close(f"{what} reader", reader.stop)
    return reader


async def until_loaded(catalog_feed: CatalogFeed, model_feed: ModelFeed, wait_s: float) -> None:
    """Returns when the catalogue and the vectors are there, or the catalogue alone after wait_s more."""
    await catalog_feed.until_end()
    try:
        async with asyncio.timeout(wait_s):
            await model_feed.loaded.wait()
    except TimeoutError:
        metrics.log.warning("serving without vectors", waited_s=wait_s)
    # A first start is seeded while it waits: catalogue first, then the model.
    await catalog_feed.until_end()


def main() -> None:
    """Entry point."""
    settings = load(RecallSettings)
    kernel.warm_up()
    item_lists.warm_up()

    async def wire(process: Process) -> None:
        await start(settings, process)

    run(settings, wire)


if __name__ == "__main__":
    main()
