"""The feature server over real gRPC and real Redis: answers, degradations, barriers, errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import numpy as np
import pytest
import redis.asyncio as redis
import uvloop
from feature_kit import FEATURES, clicked, listed, shown, states_of

from rec.v1 import feature_pb2_grpc
from rec.v1.feature_pb2 import (
    DescribeFeaturesRequest,
    ExplainFeaturesRequest,
    FeatureServiceWaitForBarrierRequest,
    GetFeaturesRequest,
    GetFeaturesResponse,
    ListFeatureViewsRequest,
)
from services.contract import features, redis_keys, times
from services.contract.columns import U64, encode
from services.contract.feature_view import view_from
from services.contract.view_events import Event
from services.contract.view_registry import FeatureSet
from services.feature import metrics
from services.feature.__main__ import start
from services.feature.settings import FeatureSettings
from services.runtime import redis_reader, resp
from services.runtime.grpc_errors import violations_of
from services.runtime.process import Process
from services.runtime.redis_reader import RedisReader
from services.runtime.settings import GrpcServerSettings, RedisSettings

pytestmark = pytest.mark.integration
NOW = 1_760_000_000_000_000
FREE = GrpcServerSettings(port=0, admin_port=0, metrics_port=0)


class Server:
    """A feature server and a client of the Redis behind it."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def open(self, url: str, **settings: Any) -> None:
        settings = {"follow_views": False, **settings}
        made = FeatureSettings(grpc=FREE, redis=RedisSettings(url=url), **settings)
        process = Process(made)
        self._stack.push_async_callback(process.close)
        self.server = await start(made, process)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.server.port}")
        self._stack.push_async_callback(channel.close)
        self.stub = feature_pb2_grpc.FeatureServiceStub(channel)
        self.redis = redis.Redis.from_url(url)
        self._stack.push_async_callback(self.redis.aclose)

    async def ask(self, ids: list[int], timeout: float | None = 2.0) -> GetFeaturesResponse:
        request = GetFeaturesRequest(user_id=7, item_ids=encode(np.array(ids, U64), U64))
        request.occurred_at.CopyFrom(times.from_us(NOW))
        return await self.stub.GetFeatures(request, timeout=timeout)

    async def wait(self, barrier: str, timeout_ms: int) -> float:
        request = FeatureServiceWaitForBarrierRequest(barrier_id=barrier)
        request.timeout.FromMilliseconds(timeout_ms)
        answer = await self.stub.WaitForBarrier(request, timeout=10)
        return times.to_us(answer.passed_at)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


@pytest.fixture
async def server(stack: AsyncExitStack, redis_url: str) -> Server:
    made = Server(stack)
    await made.open(redis_url)
    return made


def reasons(answer: GetFeaturesResponse) -> list[str]:
    return [f"{part.source}:{part.reason}" for part in answer.degraded]


VIEWS = {view.name: view for view in FEATURES.views}
Stored = dict[tuple[str, bytes], bytes]


async def store(server: Server, states: Stored) -> None:
    keys = {redis_keys.view_key(VIEWS[name], entity): value for (name, entity), value in states.items()}
    await server.redis.mset(keys)


def life(items: int, rng: np.random.Generator) -> list[Event]:
    """Listings, impressions and clicks of three users up to NOW, a few of them after it."""
    events = [listed(item, item % 20, NOW - 10**9, item, NOW - 10**9) for item in range(items) if item % 10]
    at_us = NOW - np.sort(rng.integers(-5, 700, 4 * items))[::-1] * times.MICROS
    for sequence, at in enumerate(at_us.tolist()):
        item, user = int(rng.integers(0, items)), int(rng.integers(6, 9))
        if item % 10 == 0:
            continue
        made = clicked if sequence % 4 == 0 else shown
        events.append(made(user, item, item % 20, at, sequence))
    return events


async def test_the_answer_is_the_contracts_encoding_of_what_stands_in_redis(server: Server) -> None:
    rng = np.random.default_rng(1)
    states = states_of(life(400, rng))
    await store(server, states)
    ids = [int(item) for item in rng.permutation(400)]
    for _ in range(2):  # read, then near
        answer = await server.ask(ids)
        wanted = features.encode(FEATURES, states, 7, np.array(ids, np.uint64), NOW)
        assert answer.user_features == wanted.user.tobytes()
        assert answer.item_features == wanted.items.tobytes()
        assert (answer.missing_items.count(1), answer.missing_user, reasons(answer)) == (40, False, [])
        assert answer.schema_hash == FEATURES.schema_hash
        newest = dict(zip(VIEWS, answer.view_age_s, strict=True))
        assert newest["time"] == -1 and newest["item_activity"] == 0 <= newest["user_activity"] < 30
        masks = np.frombuffer(answer.missing_item_views, "<u4")
        for bit, name in enumerate(VIEWS):
            if not features.of_request(VIEWS[name]):
                assert np.array_equal(masks >> bit & 1, wanted.missing[name])


def test_the_reader_works_on_the_loop_of_production(redis_url: str) -> None:
    """uvloop's transports are not asyncio's."""

    async def read() -> list[bytes | None]:
        reader = RedisReader(RedisSettings(url=redis_url), 2)
        answers = await reader.ask(resp.command(b"PING"))
        answers += await reader.ask(resp.mget([(b"", b"a", 1), (b"f:i:", bytes(16), 8)]))
        await reader.close()
        return answers

    assert uvloop.run(read()) == [b"PONG", None, None, None]


async def test_unknown_user_and_no_items_are_answers(server: Server) -> None:
    answer = await server.ask([])
    assert answer.missing_user and answer.item_features == b"" and reasons(answer) == []


async def test_values_of_another_shape_count_as_missing(server: Server) -> None:
    views = [view for view in FEATURES.views if view.kind != "instant"]
    user, item = (7).to_bytes(8, "little"), (1).to_bytes(8, "little")
    keys = [redis_keys.view_key(view, user if view.key == ("user_id",) else item) for view in views]
    await server.redis.mset(dict.fromkeys(keys, b"\x09" * 300))
    answer = await server.ask([1])
    assert list(answer.missing_items) == [1] and answer.missing_user and reasons(answer) == []


async def test_bad_requests_name_the_field(server: Server) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.stub.GetFeatures(GetFeaturesRequest(item_ids=b"1234567"), timeout=2)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert [field for field, _ in violations_of(caught.value)] == ["item_ids"]


async def test_100_000_entities_in_one_request_are_refused(server: Server) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.ask(list(range(100_000)))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert violations_of(caught.value) == [("item_ids", "100000 items: at most 10000 items")]
    assert len((await server.ask(list(range(10_000)))).missing_items) == 10_000


async def test_describe_names_every_column(server: Server) -> None:
    answer = await server.stub.DescribeFeatures(DescribeFeaturesRequest(), timeout=2)
    names = [column.name for column in (*answer.user_columns, *answer.item_columns)]
    assert names == [column.name for column in (*FEATURES.request_columns, *FEATURES.candidate_columns)]


async def test_the_views_are_listed_as_they_are_defined(server: Server) -> None:
    answer = await server.stub.ListFeatureViews(ListFeatureViewsRequest(), timeout=2)
    assert FeatureSet(view_from(view.definition) for view in answer.views).schema_hash == answer.schema_hash
    assert [view.definition_hash for view in answer.views] == [v.definition_hash for v in FEATURES.views]
    assert all(view.owner and view.description for view in answer.views)


async def test_an_explanation_says_which_hops_made_a_value(server: Server) -> None:
    minute = 60 * times.MICROS
    base = NOW // minute * minute
    log = [listed(1, 3, base - minute, 1, base - minute)]
    ages = enumerate((2, 1, 1, 0))
    log += [shown(7, 1, 3, base - age * minute + 1, sequence) for sequence, age in ages]
    log.append(clicked(7, 1, 3, base + 2, 20))
    await store(server, states_of(log))
    names = ["item_activity_shown_1m", "user_clicks_clicked_before", "item_activity_shown", "time_day_sin"]
    request = ExplainFeaturesRequest(user_id=7, item_id=1, features=names)
    request.occurred_at.FromMicroseconds(base + minute // 2)
    answer = await server.stub.ExplainFeatures(request, timeout=2)
    window, before, ever, _ = answer.features
    states = states_of(log)
    wanted = features.encode(FEATURES, states, 7, np.array([1], np.uint64), base + minute // 2)
    place = [column.name for column in FEATURES.candidate_columns].index(names[0])
    assert window.value == wanted.items[0, place] and not window.is_default
    # Two in the hop before, one in the head.
    assert [list(part.tiles) for part in window.tiles] == [[2, 1]]
    assert times.to_us(window.tiles[0].to) == base + minute // 2
    assert [times.to_us(at) for at in before.recent] == [base + 2] and before.value == 1
    assert sum(ever.tiles[0].tiles) + ever.tiles[0].before == 4
    assert not window.event_ids and answer.event_ids_note

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.stub.ExplainFeatures(ExplainFeaturesRequest(features=["no_such"]), timeout=2)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert "no_such" in str(caught.value.details())


async def test_a_hanging_redis_costs_its_share_then_nothing(stack: AsyncExitStack) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    hole = await asyncio.start_server(never, "127.0.0.1", 0)
    stack.push_async_callback(hole.wait_closed)
    stack.callback(hole.close)
    made = Server(stack)
    port = hole.sockets[0].getsockname()[1]
    await made.open(
        f"redis://127.0.0.1:{port}/0", breaker_failures=2, breaker_pause_ms=60_000, ready_wait_ms=0
    )
    assert reasons(await made.ask([1], timeout=0.2)) == ["feature:deadline"]
    assert reasons(await made.ask([1], timeout=0.2)) == ["feature:deadline"]
    started = time.monotonic()
    answers = [await made.ask([1, 2], timeout=0.2) for _ in range(10)]
    assert time.monotonic() - started < 0.15
    assert {tuple(reasons(answer)) for answer in answers} == {("feature:unavailable",)}
    assert answers[0].missing_items == b"\x01\x01"


async def test_a_dead_redis_gives_defaults_and_its_return_is_noticed(
    stack: AsyncExitStack, private_redis: Any
) -> None:
    made = Server(stack)
    await made.open(private_redis.url, breaker_pause_ms=100)
    await made.redis.set(KEY, state_of(1))
    assert list((await made.ask([1])).missing_items) == [0]
    private_redis.kill()
    answers = [await made.ask([1]) for _ in range(6)]
    assert all(reasons(answer) == ["feature:unavailable"] for answer in answers)
    private_redis.start()
    async with asyncio.timeout(10):
        while reasons(await made.ask([1])):  # noqa: ASYNC110 - the server's breaker decides when
            await asyncio.sleep(0.05)


async def test_a_waiting_caller_is_woken_by_the_announcement(server: Server) -> None:
    waiting = asyncio.create_task(server.wait("b", 5_000))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await server.redis.hset(redis_keys.BARRIER_KEY, "b", NOW)
    await server.redis.publish(redis_keys.BARRIER_CHANNEL, "b")
    started = time.monotonic()
    assert await waiting == NOW
    assert time.monotonic() - started < 0.2


async def test_a_barrier_whose_announcement_was_lost_is_found_all_the_same(server: Server) -> None:
    waiting = asyncio.create_task(server.wait("b", 5_000))
    await asyncio.sleep(0.1)
    await server.redis.hset(redis_keys.BARRIER_KEY, "b", NOW)
    assert await waiting == NOW
    assert await server.wait("b", 1_000) == NOW


async def test_a_barrier_that_does_not_come_is_a_deadline(server: Server) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.wait("never", 50)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_waiting_callers_are_limited(stack: AsyncExitStack, redis_url: str) -> None:
    made = Server(stack)
    await made.open(redis_url, max_barrier_waits=1)
    first = asyncio.create_task(made.wait("b", 5_000))
    await asyncio.sleep(0.2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await made.wait("c", 1_000)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    await made.redis.hset(redis_keys.BARRIER_KEY, "b", NOW)
    assert await first == NOW


def counted(counter: Any) -> float:
    return float(counter._value.get())


KEY = redis_keys.view_key(VIEWS["item_activity"], (1).to_bytes(8, "little"))


def of_item(impressions: int) -> Stored:
    """Item 1 after so many impressions (and one: none is no state)."""
    states = states_of(shown(5, 1, 3, NOW - 1, sequence) for sequence in range(impressions + 1))
    return {key: value for key, value in states.items() if key[0] == "item_activity"}


def state_of(impressions: int) -> bytes:
    return next(iter(of_item(impressions).values()))


def encoded(impressions: int) -> bytes:
    return features.encode(FEATURES, of_item(impressions), 7, np.array([1], np.uint64), NOW).items.tobytes()


async def answered(server: Server, item: int) -> bytes:
    answer = await server.ask([item])
    assert reasons(answer) == []
    return answer.item_features


async def until_read_again(server: Server, item: int, old: bytes) -> bytes:
    async with asyncio.timeout(5):
        while (now := await answered(server, item)) == old:  # noqa: ASYNC110 - Redis' message decides when
            await asyncio.sleep(0.01)
    return now


async def test_an_item_is_read_once_and_again_when_it_was_written(server: Server) -> None:
    key = KEY
    await server.redis.set(key, state_of(1))
    first = await answered(server, 1)
    read, near = counted(metrics.ITEMS_READ), counted(metrics.NEAR_HITS)
    assert await answered(server, 1) == first
    assert (counted(metrics.ITEMS_READ) - read, counted(metrics.NEAR_HITS) - near) == (0, 1)

    await server.redis.set(key, state_of(2))
    second = await until_read_again(server, 1, first)
    await server.redis.delete(key)
    await until_read_again(server, 1, second)
    assert list((await server.ask([1])).missing_items) == [1]
    await server.redis.set(key, state_of(1))
    async with asyncio.timeout(5):
        while await answered(server, 1) != first:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


async def test_after_a_barrier_nothing_older_is_answered(server: Server) -> None:
    for turn in range(50):
        await server.redis.set(KEY, state_of(turn))
        await server.redis.hset(redis_keys.BARRIER_KEY, f"b{turn}", NOW)
        await server.wait(f"b{turn}", 1_000)
        seen = await answered(server, 1)
        assert seen == encoded(turn)


async def test_a_flush_and_a_lost_connection_empty_what_was_kept(server: Server) -> None:
    await server.redis.set(KEY, state_of(1))
    first = await answered(server, 1)
    await server.redis.client_kill_filter(_type="normal", skipme=True)
    await server.redis.set(KEY, state_of(2))
    async with asyncio.timeout(5):
        while reasons(await server.ask([1])):  # noqa: ASYNC110 - until it has connected again
            await asyncio.sleep(0.01)
    second = await answered(server, 1)
    assert second != first
    await server.redis.flushall()
    await until_read_again(server, 1, second)
    assert list((await server.ask([1])).missing_items) == [1]


async def test_a_redis_that_cannot_track_is_read_each_time(stack: AsyncExitStack, private_redis: Any) -> None:
    """As a proxy or an old Redis: here by a user that may not."""
    async with redis.Redis.from_url(private_redis.url) as admin:
        rights = ("~*", "&*", "+@all", "-client", "-hello")
        await admin.execute_command("ACL", "SETUSER", "plain", "on", ">secret", *rights)
    made = Server(stack)
    refused = counted(redis_reader.UNTRACKED)
    await made.open(private_redis.url.replace("redis://", "redis://plain:secret@"))
    await made.ask([])
    assert counted(redis_reader.UNTRACKED) == refused + 1
    read = counted(metrics.ITEMS_READ)
    for turn in range(3):
        await made.redis.set(KEY, state_of(turn))
        assert await answered(made, 1) == encoded(turn)
    assert counted(metrics.ITEMS_READ) == read + 3
