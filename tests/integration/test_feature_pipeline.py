"""Events through real Kafka and the real pipeline into real Redis: exactly the state of the pure fold."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis as redis_sync
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK, Action, EventRecord, Impression, Item
from rec.v1 import feature_pb2_grpc, worker_pb2_grpc
from rec.v1.feature_pb2 import FeatureServiceWaitForBarrierRequest, GetFeaturesRequest
from rec.v1.worker_pb2 import GetWorkerStatusRequest
from services.contract import feature_events, features, redis_keys, times, topics
from services.contract.columns import U64, encode
from services.contract.feature_fold import ItemState, UserState, fold
from services.feature.__main__ import start as start_feature
from services.feature.settings import FeatureSettings
from services.runtime.kafka_consumer import LogReader
from services.runtime.kafka_producer import Producer
from services.runtime.process import Process
from services.runtime.settings import GrpcServerSettings, KafkaSettings, RedisSettings

pytestmark = pytest.mark.integration
START_US = 1_760_000_000_000_000
ITEMS, USERS = 60, 12


def category_of(item: int) -> int:
    return item % 7 + 1


def traffic(requests: int, seed: int, first: int = 0) -> list[tuple[str, EventRecord]]:
    """(topic, record) of impressions of 5 items and some clicks, in the order of their times."""
    rng = random.Random(seed)
    records: list[tuple[str, EventRecord]] = []
    for number in range(first, first + requests):
        request, user, at_us = f"q{number}", rng.randint(1, USERS), START_US + number * 700_000
        items = rng.sample(range(1, ITEMS + 1), 5)
        shown = Impression(
            event_id=f"{request}:shown",
            request_id=request,
            user_id=user,
            item_ids=items,
            occurred_at=times.from_us(at_us),
        )
        records.append((topics.IMPRESSIONS.name, EventRecord(impression=shown)))
        for item in items[: rng.randint(0, 2)]:
            action = Action(
                event_id=f"{request}:{item}:1",
                request_id=request,
                user_id=user,
                item_id=item,
                kind=ACTION_KIND_CLICK,
                occurred_at=times.from_us(at_us + rng.randint(1, 5_000_000)),
            )
            records.append((topics.ACTIONS.name, EventRecord(action=action)))
    return records


def expected(records: list[tuple[str, EventRecord]]) -> dict[bytes, bytes]:
    """Redis key -> value by the contract's fold over the events, each once."""
    items = {item: ItemState(category_of(item), START_US - item) for item in range(1, ITEMS + 1)}
    users: dict[int, UserState] = {}
    seen = set()
    for topic, record in records:
        event = getattr(record, record.WhichOneof("record"))
        if event.event_id in seen:
            continue
        seen.add(event.event_id)
        for _, part in feature_events.split(record, topic, 0, 0, category_of):
            entity = feature_events.entity_of(part)
            if feature_events.is_user_part(part):
                fold(users.setdefault(entity, UserState()), part)
            else:
                fold(items[entity], part)
    states = {redis_keys.item_key(item): state.pack() for item, state in items.items()}
    return states | {redis_keys.user_key(user): state.pack() for user, state in users.items()}


class Stage:
    """Kafka, Redis, the pipeline as a process of its own, the feature server in this one."""

    def __init__(self, kafka: Any, redis: Any, folder: Path, ports: list[int], stack: AsyncExitStack) -> None:
        self.kafka_settings = KafkaSettings(bootstrap_servers=kafka.bootstrap)
        self.redis_url = redis.url
        self.folder, self.ports, self.stack = folder, ports, stack
        self.pipeline: asyncio.subprocess.Process | None = None
        self.sent: list[tuple[str, EventRecord]] = []

    async def open(self) -> None:
        self.producer = Producer(self.kafka_settings, "test")
        await self.producer.start()
        self.stack.push_async_callback(self.producer.stop)
        for item in range(1, ITEMS + 1):
            listed = Item(item_id=item, category=category_of(item), created_at=times.from_us(START_US - item))
            self.producer.send_nowait(
                topics.CATALOG.name, listed.SerializeToString(), topics.entity_key(item)
            )
        await self.producer.flush()
        settings = FeatureSettings(
            grpc=GrpcServerSettings(port=0, admin_port=0, metrics_port=0),
            redis=RedisSettings(url=self.redis_url),
        )
        process = Process(settings)
        self.stack.push_async_callback(process.close)
        server = await start_feature(settings, process)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        self.stack.push_async_callback(channel.close)
        self.feature = feature_pb2_grpc.FeatureServiceStub(channel)

    async def start_pipeline(self) -> None:
        command = [sys.executable, "-m", "services.feature_pipeline", "--kafka.session_timeout_ms", "6000"]
        for name, port in zip(("port", "admin_port", "metrics_port"), self.ports, strict=True):
            command += [f"--grpc.{name}", str(port)]
        environment = os.environ | {
            "RECLOOP_KAFKA__BOOTSTRAP_SERVERS": self.kafka_settings.bootstrap_servers,
            "RECLOOP_REDIS__URL": self.redis_url,
        }
        with (self.folder / "pipeline.log").open("ab") as log:
            self.pipeline = await asyncio.create_subprocess_exec(*command, env=environment, stderr=log)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.ports[1]}") as channel, asyncio.timeout(30):
            health = health_pb2_grpc.HealthStub(channel)
            while True:
                with suppress(grpc.aio.AioRpcError):
                    answer = await health.Check(health_pb2.HealthCheckRequest())
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                await asyncio.sleep(0.05)

    async def kill_pipeline(self, number: signal.Signals = signal.SIGKILL) -> int:
        assert self.pipeline is not None
        with suppress(ProcessLookupError):
            self.pipeline.send_signal(number)
        return await self.pipeline.wait()

    async def send(self, records: list[tuple[str, EventRecord]]) -> None:
        for topic, record in records:
            event = getattr(record, record.WhichOneof("record"))
            self.producer.send_nowait(topic, record.SerializeToString(), topics.request_key(event.request_id))
        await self.producer.flush()
        self.sent += records

    async def barrier(self, name: str, timeout_s: float = 40) -> float:
        """Seconds from the barrier's last record being acknowledged to the feature server's answer."""
        record = EventRecord()
        record.barrier.barrier_id = name
        times.set_us(record.barrier.occurred_at, START_US + 10**12)
        for topic, partition in feature_events.BARRIER_ORIGINS:
            self.producer.send_nowait(topic, record.SerializeToString(), partition=partition)
        await self.producer.flush()
        started = time.monotonic()
        request = FeatureServiceWaitForBarrierRequest(barrier_id=name)
        request.timeout.FromMilliseconds(int(timeout_s * 1000))
        await self.feature.WaitForBarrier(request, timeout=timeout_s + 1)
        return time.monotonic() - started

    def stored(self) -> dict[bytes, bytes]:
        with redis_sync.Redis.from_url(self.redis_url) as client:
            keys = [*client.keys(b"f:i:*"), *client.keys(b"f:u:*")]
            return dict(zip(keys, client.mget(keys), strict=True))

    def totals(self) -> tuple[int, int, int]:
        """Impressions, clicks, and clicks in the popular hops."""
        with redis_sync.Redis.from_url(self.redis_url) as client:
            shown, clicked = client.mget(redis_keys.GLOBAL_IMPRESSIONS_KEY, redis_keys.GLOBAL_CLICKS_KEY)
            hops = [client.zrange(key, 0, -1, withscores=True) for key in client.keys(b"r:pop:*")]
            popular = sum(score for hop in hops for _, score in hop)
            return int(shown or 0), int(clicked or 0), int(popular)

    def expect_exact(self) -> None:
        assert self.stored() == expected(self.sent)
        shown = {event.impression.event_id: 5 for _, event in self.sent if event.HasField("impression")}
        clicks = {event.action.event_id for _, event in self.sent if event.HasField("action")}
        assert self.totals() == (sum(shown.values()), len(clicks), len(clicks))


@pytest.fixture
async def stage(private_kafka, private_redis, tmp_path, free_ports) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        built = Stage(private_kafka, private_redis, tmp_path, free_ports(3), stack)
        await built.open()
        await built.start_pipeline()
        yield built
        await built.kill_pipeline()


async def test_state_is_that_of_the_fold_and_repeats_and_bad_records_change_nothing(stage: Stage) -> None:
    records = traffic(200, seed=1)
    repeats = random.Random(2).sample(records, 40)
    await stage.send(records)
    await stage.send(repeats)
    await stage.producer.send(topics.ACTIONS.name, b"\xff\xff not a record", b"k", partition=1)
    seconds = await stage.barrier("b1")
    stage.expect_exact()
    assert seconds < 2
    quick = sorted([await stage.barrier(f"quick{i}") for i in range(9)])[4]
    print(f"barrier p50 {quick * 1000:.1f} ms")  # noqa: T201
    assert quick < 0.25

    ids = list(range(1, ITEMS + 1))
    at_us = START_US + 200 * 700_000
    request = GetFeaturesRequest(
        user_id=3, item_ids=encode(ids, U64), occurred_at=times.from_us(at_us), request_id="r"
    )
    answer = await stage.feature.GetFeatures(request, timeout=5)
    wanted = expected(stage.sent)
    user, items, _ = features.encode(
        wanted[redis_keys.user_key(3)],
        [wanted[redis_keys.item_key(item)] for item in ids],
        at_us,
        features.prior_rate(*stage.totals()[:2]),
        item_ids=features.np.array(ids, U64),
    )
    assert answer.user_features == user.tobytes()
    assert answer.item_features == items.tobytes()
    assert not answer.degraded and not answer.missing_user and answer.missing_items == bytes(ITEMS)

    async with grpc.aio.insecure_channel(f"127.0.0.1:{stage.ports[0]}") as channel:
        status = await worker_pb2_grpc.WorkerServiceStub(channel).GetWorkerStatus(GetWorkerStatusRequest())
    assert status.state == "running" and status.last_barrier_id == "quick8"
    assert status.numbers["duplicates"] == 40 and status.numbers["dead_letters"] == 1
    assert {p.topic for p in status.partitions} >= {"impressions", "actions", "catalog", "feature-events"}

    reader = LogReader(stage.kafka_settings, "letters")
    await reader.start()
    (where,) = await reader.partitions(topics.DEAD_LETTERS.name)
    reader.assign({where: 0})
    (letter,) = (await reader.poll(2_000))[where]
    await reader.stop()
    headers = dict(letter.headers)
    assert letter.value == b"\xff\xff not a record"
    assert headers[topics.HEADER_ORIGIN_TOPIC] == b"actions" and b"EventRecord" in headers["reason"]


async def test_nothing_is_lost_or_doubled_when_the_pipeline_is_killed_again_and_again(stage: Stage) -> None:
    rng = random.Random(3)
    for turn in range(3):
        sending = asyncio.create_task(stage.send(traffic(300, seed=turn, first=300 * turn)))
        await asyncio.sleep(rng.uniform(0.05, 0.3))
        await stage.kill_pipeline()
        await sending
        await stage.start_pipeline()
    # A client's retry after the restart: its event id is known from the records read again.
    await stage.send(stage.sent[-20:])
    await stage.barrier("b1")
    stage.expect_exact()


async def test_a_redis_that_lost_everything_is_filled_again_from_the_log(stage: Stage, private_redis) -> None:
    await stage.send(traffic(100, seed=4))
    await stage.barrier("b1")
    private_redis.kill()
    await stage.send(traffic(100, seed=5, first=100))
    lost = await stage.feature.GetFeatures(
        GetFeaturesRequest(user_id=1, item_ids=encode([1], U64)), timeout=2
    )
    assert [f"{d.source}:{d.reason}" for d in lost.degraded] == ["feature:unavailable"]
    assert list(lost.missing_items) == [1] and lost.missing_user
    private_redis.start()
    await stage.barrier("b2")
    stage.expect_exact()


async def test_it_stops_politely(stage: Stage) -> None:
    await stage.send(traffic(50, seed=6))
    assert await stage.kill_pipeline(signal.SIGTERM) == 0
    await stage.start_pipeline()
    await stage.barrier("b1")
    stage.expect_exact()
