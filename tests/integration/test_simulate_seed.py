"""A seed fills a real Kafka, Redis and release with a small world, once, and can be repeated."""

import asyncio
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer

from loadgen import day0, day0_clicks, day0_files, day0_views, seed, seed_settled, world_clock
from loadgen.settings import SeedSettings, WorldSettings
from local.ports import free_ports
from rec.events.v1.events_pb2 import Item
from rec.v1 import release_pb2, release_pb2_grpc
from services.contract import features, redis_keys, topics
from services.contract.errors import InvalidInput, Unavailable
from services.contract.feature_sets import WORLD
from services.contract.model_store import load_base
from services.contract.times import MICROS, to_us
from services.runtime import grpc_client, redis_client
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.settings import KafkaSettings, RedisSettings
from tests.feature_kit import FEATURES, SHAPE

pytestmark = pytest.mark.integration
TINY = WorldSettings(items=2_000, users=60, sessions=2, session_s=8.0, day0_rate=40.0)


@pytest.fixture
def release(private_kafka, tmp_path):
    """A release process of its own; host:port."""
    port, admin, metrics = free_ports(3)
    command = [sys.executable, "-m", "services.release", "--grpc.port", str(port)]
    command += ["--grpc.admin_port", str(admin), "--grpc.metrics_port", str(metrics)]
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": private_kafka.bootstrap}
    with (tmp_path / "release.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stderr=log)
        yield f"127.0.0.1:{port}"
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def day0_cache(tmp_path_factory):
    """One cache for all tests here: the day is simulated and trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def settings(  # noqa: PLR0917
    private_kafka, private_redis, release, day0_cache, tmp_path, monkeypatch
) -> SeedSettings:
    monkeypatch.setenv("XDG_CACHE_HOME", str(day0_cache))
    return SeedSettings(
        kafka=KafkaSettings(bootstrap_servers=private_kafka.bootstrap),
        redis=RedisSettings(url=private_redis.url),
        release_target=release,
        settle_timeout_ms=0,
        run_dir=tmp_path / "run",
        model_store_uri=str(tmp_path / "store"),
        sim=TINY,
    )


async def arms(settings: SeedSettings):
    async with grpc_client.channel(settings.release_target) as channel:
        stub = release_pb2_grpc.ReleaseServiceStub(channel)
        answer = await stub.ListReleases(release_pb2.ListReleasesRequest(), timeout=10, wait_for_ready=True)
    return {release.arm: release for release in answer.releases}


async def catalogue(settings: SeedSettings) -> list[Item]:
    partition = TopicPartition(topics.CATALOG.name, 0)
    reader = LogReader(settings.kafka, "test")
    await reader.start()
    try:
        end = (await reader.end_offsets([partition]))[partition]
        reader.assign({partition: 0})
        items: list[Item] = []
        while len(items) < end:
            for record in (await reader.poll(500, 5_000)).get(partition, []):
                items.append(Item.FromString(record.value))
                assert record.key == topics.entity_key(items[-1].item_id)
        return items
    finally:
        await reader.stop()


async def redis_values(settings: SeedSettings, keys: list[bytes]) -> list[bytes | None]:
    client = redis_client.connect(settings.redis)
    try:
        return await client.mget(keys)
    finally:
        await client.aclose()


def test_a_seeded_stack_has_catalogue_features_and_generation_1(settings):
    assert seed.run(settings) == 0
    now_us = time.time_ns() // 1000
    files = day0_files.read(day0.day0_folder(TINY.config(), WORLD))
    clock = world_clock.read(settings.run_dir, TINY.config())
    assert 0 <= now_us - clock.origin_us < 200 * MICROS

    found = asyncio.run(arms(settings))
    assert {"online", "frozen"} <= set(found)
    base = found["online"].base
    state, _ = load_base(base.manifest_uri, SHAPE, manifest_digest=base.manifest_digest)
    last_seen = state.tables["user"].last_seen_us.max()
    assert 0 <= clock.origin_us - last_seen < 60 * MICROS

    items = asyncio.run(catalogue(settings))
    assert [item.item_id for item in items] == files.item_ids.tolist()
    assert max(to_us(item.created_at) for item in items) <= clock.origin_us

    clicked = day0_clicks.clicks(files.views).field("user_id")
    ids, counts = np.unique(clicked, return_counts=True)
    user, newborn = int(ids[counts.argmax()]), files.item_ids[-TINY.config().births_per_session :]
    wanted = features.needed(FEATURES, user, newborn, files.categories[-len(newborn) :].astype(np.int64))
    values = asyncio.run(
        redis_values(settings, [redis_keys.view_key(view, entity) for view, entity in wanted])
    )
    states = {
        (view.name, entity): value
        for (view, entity), value in zip(wanted, values, strict=True)
        if value is not None
    }
    said = features.encode(FEATURES, states, user, newborn, now_us)
    assert not said.missing["item_catalogue"].any() and not said.missing["user_clicks"].any()
    columns = [column.name for column in FEATURES.request_columns]
    # Seen some minutes ago at most, not on the day of the cached files.
    assert 0 < said.user[columns.index("user_clicks_seconds")] < np.log1p(400) / 5
    columns = [column.name for column in FEATURES.candidate_columns]
    ages = said.items[:, columns.index("item_catalogue_age")]
    assert (ages > 0).all() and (ages < np.log1p(400) / 5).all()


def test_a_second_seed_changes_nothing_and_a_cut_off_one_is_completed(settings):
    assert seed.run(settings) == 0
    before = asyncio.run(arms(settings))
    clock = world_clock.read(settings.run_dir, TINY.config())
    items = len(asyncio.run(catalogue(settings)))
    assert seed.run(settings) == 0
    assert len(asyncio.run(catalogue(settings))) == items

    async def marks(lose: bool) -> list[str | None]:
        client = redis_client.connect(settings.redis)
        keys = [redis_keys.mark_key(partition) for partition in range(topics.FEATURE_EVENTS.partitions)]
        if lose:
            await client.delete(*keys)
        found = [await client.hget(key, day0_views.ORIGIN) for key in keys]
        await client.aclose()
        return found

    written = asyncio.run(marks(lose=False))
    files = day0_files.read(day0.day0_folder(TINY.config(), WORLD))
    assert written == [b"%d" % (len(files.views) - 1)] * topics.FEATURE_EVENTS.partitions
    asyncio.run(marks(lose=True))
    assert seed.run(settings) == 0
    assert asyncio.run(marks(lose=False)) == written
    assert asyncio.run(arms(settings)) == before
    assert world_clock.read(settings.run_dir, TINY.config()) == clock


def test_a_replay_seed_lists_the_dataset_with_an_untrained_model(settings, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("timestamp,user_id,item_id,label\n10,a,x,1\n11,b,y,0\n12,a,y,1\n")
    assert seed.run(settings.model_copy(update={"world": "replay", "data": str(path)})) == 0
    assert sorted(item.item_key for item in asyncio.run(catalogue(settings))) == ["x", "y"]
    base = asyncio.run(arms(settings))["online"].base
    state, _ = load_base(base.manifest_uri, SHAPE, manifest_digest=base.manifest_digest)
    assert state.rows == 0 and state.samples_trained == 0


def test_a_seed_waits_until_the_pipeline_has_folded_it(settings):
    async def folded(kafka: KafkaSettings) -> None:
        """As far as the log goes: both groups commit the end of their topic, half a second apart."""
        for topic, group in seed_settled.STAGES:
            reader = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id=group)
            await reader.start()
            count = next(one.partitions for one in topics.ALL if one.name == topic)
            where = [TopicPartition(topic, partition) for partition in range(count)]
            reader.assign(where)
            await reader.commit(await reader.end_offsets(where))
            await reader.stop()
            await asyncio.sleep(0.5)

    async def meanwhile() -> float:
        began = time.monotonic()
        waiting = asyncio.create_task(seed_settled.wait(settings.kafka, 30))
        await asyncio.sleep(1.5)
        assert not waiting.done()
        await folded(settings.kafka)
        await waiting
        return time.monotonic() - began

    assert seed.run(settings) == 0
    with pytest.raises(Unavailable, match=r"2,\d{3} records of catalog are left"):
        asyncio.run(seed_settled.wait(settings.kafka, 0.7))
    assert asyncio.run(meanwhile()) > 1.5


def test_data_and_world_must_agree(settings):
    with pytest.raises(InvalidInput, match="data"):
        seed.run(settings.model_copy(update={"data": "somewhere"}))
    with pytest.raises(InvalidInput, match="data"):
        seed.run(settings.model_copy(update={"world": "replay"}))


def test_a_release_that_is_not_there_is_named(settings):
    away = settings.model_copy(update={"release_target": "127.0.0.1:1", "release_timeout_ms": 500})
    with pytest.raises(Unavailable, match=r"release at 127\.0\.0\.1:1"):
        seed.run(away)
