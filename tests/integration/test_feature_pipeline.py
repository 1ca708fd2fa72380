"""Events through real Kafka and the real pipeline into real Redis: exactly the states made from history."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis as redis_sync
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK, Action, EventRecord, Impression, Item
from rec.v1 import worker_pb2_grpc
from rec.v1.worker_pb2 import GetWorkerStatusRequest
from services.contract import feature_events, redis_keys, times, topics
from services.contract.feature_sets import feature_set
from services.contract.feature_view import FeatureView
from services.contract.view_aggregates import Count, Feature
from services.contract.view_backfill import FILLED, ViewStart, start_key
from services.contract.view_codec import canonical
from services.contract.view_events import Event, Select, event_hash
from services.contract.view_growth import GrowingSet
from services.contract.view_init import initial_states
from services.contract.view_log import log_of
from services.contract.view_ttl import ttl_s
from services.runtime.kafka_consumer import LogReader
from services.runtime.kafka_producer import Producer
from services.runtime.kafka_tail import LogTail
from services.runtime.settings import KafkaSettings

pytestmark = pytest.mark.integration
START_US = 1_760_000_000_000_000
ITEMS, USERS = 60, 12
VIEWS = [view for view in feature_set("world").views if view.kind != "instant"]


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


def expected(records: list[tuple[str, EventRecord]], views: list[FeatureView] = VIEWS) -> dict[bytes, bytes]:
    """Redis key -> value as made at once from the whole history, each event once."""
    events = [
        Event(
            "listed",
            0,
            (item - 1) * 1024,
            {"item_id": item, "category": category_of(item), "created_at": START_US - item},
            "catalog",
            item,
        )
        for item in range(1, ITEMS + 1)
    ]
    for record in {_event(record).event_id: _event(record) for _, record in records}.values():
        at_us, hashed = times.to_us(record.occurred_at), event_hash(record.event_id)
        if isinstance(record, Impression):
            for index, item in enumerate(record.item_ids):
                fields = {"item_id": item, "category": category_of(item), "position": index}
                fields["user_id"] = record.user_id
                events.append(Event("shown", at_us, hashed ^ item, fields, "x", len(events)))
        else:
            fields = {"item_id": record.item_id, "category": category_of(record.item_id)}
            fields |= {"user_id": record.user_id, "action": record.kind, "dwell_s": 0}
            events.append(Event("acted", at_us, hashed, fields, "x", len(events)))
    log = log_of(events, [0] * len(events))
    cut = dict.fromkeys(log.origins, len(events))
    return {
        redis_keys.view_key(view, entity): state
        for view in views
        for entity, state in initial_states(view, log, cut).items()
    }


def _event(record: EventRecord) -> Any:
    return getattr(record, record.WhichOneof("record"))


class Stage:
    """Kafka, Redis, the pipeline as a process of its own."""

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
            key = topics.request_key(_event(record).request_id)
            self.producer.send_nowait(topic, record.SerializeToString(), key)
        await self.producer.flush()
        self.sent += records

    async def barrier(self, name: str, timeout_s: float = 40) -> float:
        """Seconds from the barrier's last record being acknowledged to its being in Redis."""
        record = EventRecord()
        record.barrier.barrier_id = name
        times.set_us(record.barrier.occurred_at, START_US + 10**12)
        for topic, partition in feature_events.BARRIER_ORIGINS:
            self.producer.send_nowait(topic, record.SerializeToString(), partition=partition)
        await self.producer.flush()
        started = time.monotonic()
        with redis_sync.Redis.from_url(self.redis_url) as client:
            while client.hget(redis_keys.BARRIER_KEY, name) is None:
                assert time.monotonic() - started < timeout_s
                await asyncio.sleep(0.005)
        return time.monotonic() - started

    def stored(self) -> dict[bytes, bytes]:
        with redis_sync.Redis.from_url(self.redis_url) as client:
            keys = client.keys(b"f:*")
            return dict(zip(keys, client.mget(keys), strict=True))

    def popular(self) -> int:
        """Clicks in the popular hops."""
        with redis_sync.Redis.from_url(self.redis_url) as client:
            hops = [client.zrange(key, 0, -1, withscores=True) for key in client.keys(b"r:pop:*")]
            return int(sum(score for hop in hops for _, score in hop))

    def expect_exact(self, views: list[FeatureView] = VIEWS) -> None:
        assert self.stored() == expected(self.sent, views)
        clicks = {event.action.event_id for _, event in self.sent if event.HasField("action")}
        assert self.popular() == len(clicks)


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
    # The first one waits for both stages to join their groups.
    await stage.barrier("b1")
    stage.expect_exact()
    assert await stage.barrier("b2") < 2
    quick = sorted([await stage.barrier(f"quick{i}") for i in range(9)])[4]
    print(f"barrier p50 {quick * 1000:.1f} ms")  # noqa: T201
    assert quick < 0.25

    with redis_sync.Redis.from_url(stage.redis_url) as client:
        lives = [
            (client.ttl(key), ttl_s(view))
            for view in VIEWS
            for key in client.keys(redis_keys.view_prefix(view) + b"*")
        ]
    assert all(most - 120 < left <= most for left, most in lives)

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
    private_redis.start()
    await stage.barrier("b2")
    stage.expect_exact()


async def test_it_stops_politely(stage: Stage) -> None:
    await stage.send(traffic(50, seed=6))
    assert await stage.kill_pipeline(signal.SIGTERM) == 0
    await stage.start_pipeline()
    await stage.barrier("b1")
    stage.expect_exact()


ADDED = FeatureView(
    "item_hourly",
    1,
    ("item_id",),
    ("shown", "acted"),
    (Feature("shown", Count(Select("shown")), 3_600_000_000), Feature("acted", Count(Select("acted")))),
    600_000_000,
)


async def add_view(stage: Stage, view: FeatureView) -> tuple[int, str]:
    """Exit code and what was said, of the command."""
    command = [sys.executable, "-m", "services.feature_pipeline", "add-view", "--text", canonical(view)]
    environment = os.environ | {"RECLOOP_KAFKA__BOOTSTRAP_SERVERS": stage.kafka_settings.bootstrap_servers}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def history(stage: Stage) -> list[tuple[Event, int]]:
    """Every view event of the origin topics as they stand in Kafka, without a client's repeats, and 0."""
    reader = LogReader(stage.kafka_settings, "history")
    await reader.start()
    found: list[tuple[Event, int]] = []
    seen: set[str] = set()
    for topic in (topics.IMPRESSIONS, topics.ACTIONS):
        places = await reader.partitions(topic.name)
        ends = await reader.end_offsets(places)
        reader.assign(dict.fromkeys(places, 0))
        while any([await reader.position(where) < end for where, end in ends.items()]):
            for where, records in (await reader.poll(200, 1_000)).items():
                for raw in records:
                    record = EventRecord.FromString(raw.value)
                    if record.WhichOneof("record") not in ("impression", "action"):
                        continue
                    if _event(record).event_id in seen:
                        continue
                    seen.add(_event(record).event_id)
                    events: dict[int, Event] = {}
                    place = where.topic, where.partition, raw.offset
                    for _, message in feature_events.split(record, *place, category_of):
                        events |= {event.sequence: event for event in feature_events.view_events(message)}
                    found += [(event, 0) for event in events.values()]
    await reader.stop()
    return found


async def backfill(stage: Stage, view: FeatureView, partition: int) -> None:
    """What the job does for one partition, as contract.view_backfill says."""
    with redis_sync.Redis.from_url(stage.redis_url) as client:
        key = start_key(view, partition)
        deadline = time.monotonic() + 20
        while (start := ViewStart.parse(client.hgetall(key))) is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert start.filled is None and start.marks
        events = await history(stage)
        log = log_of([event for event, _ in events], [at for _, at in events])
        states = initial_states(view, log, start.cut()).items()
        for entity, state in states:
            if feature_events.owner(entity) == partition:
                client.set(redis_keys.view_key(view, entity), state, ex=ttl_s(view))
        client.hsetnx(key, FILLED, len(states))


async def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def served(stage: Stage) -> str:
    """The newest set by what feature-views says, once more from its beginning."""
    growing = GrowingSet("world", feature_set("world"))
    tail = LogTail(stage.kafka_settings, "test", topics.FEATURE_VIEWS.name, growing.take)
    await tail.start()
    await tail.catch_up()
    await tail.stop()
    return growing.newest_name


def live(stage: Stage, view: FeatureView) -> list[bool]:
    with redis_sync.Redis.from_url(stage.redis_url) as client:
        return [
            client.hexists(start_key(view, partition), "live")
            for partition in range(feature_events.PARTITIONS)
        ]


async def test_a_view_added_while_the_loop_runs_holds_every_event_once_through_kills(stage: Stage) -> None:
    await stage.send(traffic(200, seed=7))
    await stage.barrier("b1")
    code, said = await add_view(stage, ADDED)
    assert code == 0 and '"added": true' in said
    assert (await add_view(stage, ADDED))[0] == 1
    changed = replace(ADDED, hop_us=1_200_000_000)
    code, said = await add_view(stage, changed)
    assert code == 2 and "a changed definition needs version 2" in said

    # The loop goes on, before the history is there and while it is made.
    await stage.send(traffic(200, seed=8, first=200))
    for partition in range(feature_events.PARTITIONS):
        await backfill(stage, ADDED, partition)
        await stage.send(traffic(150, seed=20 + partition, first=400 + 150 * partition))
        if partition == 2:
            # Three partitions catch up at a time, when it is back.
            await stage.kill_pipeline()
            await stage.start_pipeline()
        assert await served(stage) == "world"
    await until(lambda: all(live(stage, ADDED)))
    # Killed between being complete and saying so, or not: it is said once it is back, and once.
    await stage.kill_pipeline()
    await stage.start_pipeline()
    async with asyncio.timeout(20):
        while await served(stage) != "world+item_hourly.1":  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await stage.send(traffic(100, seed=9, first=1_000))
    await stage.barrier("b2")
    stage.expect_exact([*VIEWS, ADDED])
    await stage.kill_pipeline()
    await stage.start_pipeline()
    await stage.send(traffic(100, seed=10, first=1_100))
    await stage.barrier("b3")
    stage.expect_exact([*VIEWS, ADDED])


async def test_an_added_view_begins_with_the_others_in_a_redis_that_lost_everything(
    stage: Stage, private_redis
) -> None:
    await stage.send(traffic(100, seed=11))
    await stage.barrier("b1")
    assert (await add_view(stage, ADDED))[0] == 0
    with redis_sync.Redis.from_url(stage.redis_url) as client:
        await until(lambda: len(client.keys(b"p:view:*")) == feature_events.PARTITIONS)
    assert not any(live(stage, ADDED))
    private_redis.kill()
    private_redis.start()
    await stage.send(traffic(50, seed=12, first=100))
    await stage.barrier("b2")
    assert all(live(stage, ADDED))
    stage.expect_exact([*VIEWS, ADDED])
