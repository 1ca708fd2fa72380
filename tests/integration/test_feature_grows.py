"""The feature server serves a view from the moment that feature-views says so: no request fails, each answer
is of one set, and a restarted server knows it before it says that it is ready."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
import redis.asyncio as redis
from feature_kit import FEATURES, clicked, listed, shown, states_of

from rec.v1 import feature_pb2, feature_pb2_grpc
from services.contract import features, redis_keys, times, topics
from services.contract.columns import U64, encode
from services.contract.feature_view import FeatureView
from services.contract.view_aggregates import Count, Feature, LastK
from services.contract.view_codec import canonical
from services.contract.view_events import Select
from services.contract.view_growth import SERVED_KEY, GrowingSet, key_of
from services.contract.view_registry import FeatureSet
from services.feature.__main__ import start
from services.feature.settings import FeatureSettings
from services.runtime.kafka_producer import Producer
from services.runtime.process import Process
from services.runtime.settings import GrpcServerSettings, KafkaSettings, RedisSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
NOW = 1_760_000_000_000_000
HOUR_US = 3_600_000_000
# Of items, and of a user compared with each candidate.
ITEM_VIEW = FeatureView(
    "item_acted", 1, ("item_id",), ("acted",), (Feature("acted", Count(Select("acted")), HOUR_US),), HOUR_US
)
USER_VIEW = FeatureView(
    "user_saw",
    1,
    ("user_id",),
    ("shown",),
    (
        Feature("shown", Count(Select("shown")), HOUR_US),
        Feature("this", LastK(Select("shown"), ("item_id",), 4, "contains", "item_id"), HOUR_US),
    ),
    HOUR_US,
)
SETS = {
    "world": FEATURES,
    "world+item_acted.1": FeatureSet((*FEATURES.views, ITEM_VIEW)),
    "world+item_acted.1+user_saw.1": FeatureSet((*FEATURES.views, ITEM_VIEW, USER_VIEW)),
}
IDS = np.arange(1, 40, dtype=np.uint64)


@asynccontextmanager
async def serving(kafka: KafkaSettings, url: str) -> AsyncIterator[feature_pb2_grpc.FeatureServiceStub]:
    """A feature server that has said SERVING."""
    free = GrpcServerSettings(port=0, admin_port=0, metrics_port=0)
    made = FeatureSettings(grpc=free, redis=RedisSettings(url=url), kafka=kafka)
    process = Process(made)
    try:
        server = await start(made, process)
        async with asyncio.timeout(60):
            while not server.health.serving:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield feature_pb2_grpc.FeatureServiceStub(channel)
    finally:
        await process.close()
    assert process.failure is None


@pytest.fixture
async def wanted(redis_url: str) -> dict[int, tuple[str, features.Encoded]]:
    """By schema hash, what a server says of what stands in Redis."""
    events = [listed(item, item % 5 + 1, NOW - 10**9, item) for item in range(1, 30)]
    for n in range(300):
        item = n * 7 % 29 + 1
        made = clicked if n % 3 == 0 else shown
        events.append(made(7 + n % 2, item, item % 5 + 1, NOW - (300 - n) * 10**6, 100 + n))
    found, client = {}, redis.Redis.from_url(redis_url)
    for name, one in SETS.items():
        states = states_of(events, one)
        views = {view.name: view for view in one.views}
        await client.mset({redis_keys.view_key(views[v], e): state for (v, e), state in states.items()})
        found[one.schema_hash] = name, features.encode(one, states, 7, IDS, NOW)
    await client.aclose()
    return found


async def test_wider_sets_are_swapped_in_under_load_and_found_again_after_a_restart(
    private_kafka, redis_url: str, wanted
) -> None:
    kafka = KafkaSettings(bootstrap_servers=private_kafka.bootstrap)
    producer = Producer(kafka, "test")
    await producer.start()
    growing = GrowingSet("world", FEATURES)
    request = feature_pb2.GetFeaturesRequest(user_id=7, item_ids=encode(IDS, U64))
    request.occurred_at.CopyFrom(times.from_us(NOW))
    seen: Counter[str] = Counter()
    over = asyncio.Event()

    async def load(stub: feature_pb2_grpc.FeatureServiceStub) -> None:
        while not over.is_set():
            answer = await stub.GetFeatures(request, timeout=5)
            name, encoded = wanted[answer.schema_hash]
            assert not answer.degraded
            assert answer.user_features == encoded.user.tobytes()
            assert answer.item_features == encoded.items.tobytes()
            assert len(answer.view_age_s) == len(SETS[name].views)
            seen[name] += 1
            await asyncio.sleep(0.002)

    async def reached(name: str) -> None:
        async with asyncio.timeout(30):
            while not seen[name] > 20:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    try:
        async with serving(kafka, redis_url) as stub, asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(load(stub))
            await reached("world")
            for name, view in (("world+item_acted.1", ITEM_VIEW), (list(SETS)[-1], USER_VIEW)):
                growing.add(view)
                await producer.send(topics.FEATURE_VIEWS.name, canonical(view).encode(), key_of(view))
                await producer.send(topics.FEATURE_VIEWS.name, b"no view", b"garbage.1")
                await asyncio.sleep(0.3)
                # Announced is not served.
                assert name not in seen
                value = growing.served_with(view)
                await producer.send(topics.FEATURE_VIEWS.name, value, SERVED_KEY)
                growing.take(SERVED_KEY, value)
                await reached(name)
            before = dict(seen)
            await asyncio.sleep(0.2)
            assert {k for k, count in seen.items() if count > before[k]} == {name}
            await described(stub)
            over.set()
        async with serving(kafka, redis_url) as stub:
            answer = await stub.GetFeatures(request, timeout=5)
            assert wanted[answer.schema_hash][0] == name
    finally:
        await producer.stop()


async def described(stub: feature_pb2_grpc.FeatureServiceStub) -> None:
    """The calls that explain know of the added views."""
    name, widest = list(SETS.items())[-1]
    views = await stub.ListFeatureViews(feature_pb2.ListFeatureViewsRequest())
    assert (views.feature_set, views.schema_hash) == (name, widest.schema_hash)
    assert [view.name for view in views.views[-2:]] == ["item_acted", "user_saw"]
    columns = await stub.DescribeFeatures(feature_pb2.DescribeFeaturesRequest())
    assert columns.item_columns[FEATURES.item_width].name == "item_acted_acted"
    names = ["user_saw_shown", "user_saw_this"]
    asked = feature_pb2.ExplainFeaturesRequest(user_id=7, item_id=3, features=names)
    asked.occurred_at.CopyFrom(times.from_us(NOW))
    explained = await stub.ExplainFeatures(asked)
    assert [one.view for one in explained.features] == ["user_saw"] * 2 and explained.features[0].value > 0
