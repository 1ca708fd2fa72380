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
from view_states_kit import States, event, folded, redis_values

from rec.v1 import feature_pb2_grpc
from rec.v1.feature_pb2 import (
    DescribeFeaturesRequest,
    FeatureServiceWaitForBarrierRequest,
    GetFeaturesRequest,
    GetFeaturesResponse,
    ListFeatureViewsRequest,
)
from services.contract import features, redis_keys, times
from services.contract.columns import U64, encode
from services.contract.feature_sets import FEATURE_SETS
from services.feature import metrics, resp
from services.feature.__main__ import start
from services.feature.redis_reader import RedisReader
from services.feature.settings import FeatureSettings
from services.runtime.grpc_errors import violations_of
from services.runtime.process import Process
from services.runtime.settings import GrpcServerSettings, RedisSettings

pytestmark = pytest.mark.integration
NOW = 1_760_000_000_000_000
SET = FEATURE_SETS["world"]
ITEM_VIEWS = [view.name for view in SET.views if view.key == ("item_id",)]
FREE = GrpcServerSettings(port=0, admin_port=0, metrics_port=0)


class Server:
    """A feature server and a client of the Redis behind it."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def open(self, url: str, **settings: Any) -> None:
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


async def test_the_answer_is_the_contracts_encoding_of_what_stands_in_redis(server: Server) -> None:
    rng = np.random.default_rng(1)
    events = [
        event("listed", NOW - 10**9 + item, 0, item, item % 20, sequence=item)
        for item in range(2_500)
        if item % 10
    ]
    for n in range(4_000):
        kind, item = ("shown", "shown", "acted")[n % 3], int(rng.integers(2_500))
        if item % 10:
            at_us = NOW - int(rng.integers(3_000)) * times.MICROS
            events.append(event(kind, at_us, 6 + n % 2, item, item % 20, sequence=10_000 + n))
    states = folded(SET, events)
    await server.redis.mset(redis_values(SET, states))
    ids = [int(item) for item in rng.permutation(2_500)]
    wanted = features.encode(SET, states, 7, np.array(ids, U64), NOW)
    # Read from Redis, then from what is kept, then half and half.
    for asked in (ids, ids[:1_000], ids):
        answer = await server.ask(asked)
        assert answer.user_features == wanted.user.tobytes()
        assert answer.item_features == wanted.items[: len(asked)].tobytes()
        missing = np.all([wanted.missing[name] for name in ITEM_VIEWS], axis=0)[: len(asked)]
        assert answer.missing_items == missing.astype(np.uint8).tobytes()
        assert (answer.missing_user, reasons(answer)) == (False, [])
        await server.redis.mset(dict(list(redis_values(SET, states).items())[:500]))
    assert answer.schema_hash == SET.schema_hash
    ages = np.frombuffer(answer.item_ages_s, "<f4")
    assert np.isnan(ages[missing == 1]).all() and ((ages >= 0) & (ages < 10**4))[missing == 0].all()
    assert 0 <= answer.user_age_s < 3_000


def test_the_reader_works_on_the_loop_of_production(redis_url: str) -> None:
    """uvloop's transports are not asyncio's."""

    async def read() -> list[bytes | None]:
        reader = RedisReader(RedisSettings(url=redis_url), 2)
        answers = await reader.ask(resp.command(b"PING"))
        answers += await reader.ask(resp.mget((b"a",), [(b"f:i:", bytes(16), 8)]))
        await reader.close()
        return answers

    assert uvloop.run(read()) == [b"PONG", None, None, None]


async def test_unknown_user_and_no_items_are_answers(server: Server) -> None:
    answer = await server.ask([])
    assert answer.missing_user and answer.item_features == b"" and reasons(answer) == []


async def test_values_of_another_shape_count_as_missing(server: Server) -> None:
    other = folded(SET, [event("shown", NOW - 5, 7, 1, 3, sequence=1)])
    values = redis_values(SET, other)
    await server.redis.mset({key: b"short" for key in values})
    assert list((await server.ask([1])).missing_items) == [1]
    await server.redis.mset({key: b"\x09" + value[1:] for key, value in values.items()})
    answer = await server.ask([1])
    assert list(answer.missing_items) == [1] and answer.missing_user and reasons(answer) == []


async def test_bad_requests_name_the_field(server: Server) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.stub.GetFeatures(GetFeaturesRequest(item_ids=b"1234567"), timeout=2)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert [field for field, _ in violations_of(caught.value)] == ["item_ids"]


async def test_describe_names_every_column(server: Server) -> None:
    answer = await server.stub.DescribeFeatures(DescribeFeaturesRequest(), timeout=2)
    assert len(answer.user_columns) == SET.user_width and len(answer.item_columns) == SET.item_width


async def test_the_views_are_listed_with_their_definitions(server: Server) -> None:
    answer = await server.stub.ListFeatureViews(ListFeatureViewsRequest(), timeout=2)
    assert [(view.name, view.version) for view in answer.views] == [(v.name, v.version) for v in SET.views]


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
    await write(made, 0)
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


def states_of(impressions: int) -> States:
    """Of item 1, shown so often."""
    events = [event("listed", NOW - 10**6, 0, 1, 3, sequence=0)]
    shown = (event("shown", NOW - 5, 8, 1, 3, sequence=1 + n) for n in range(impressions))
    return folded(SET, [*events, *shown])


async def write(server: Server, impressions: int) -> list[bytes]:
    """Puts item 1 into Redis; its keys."""
    values = redis_values(SET, states_of(impressions))
    await server.redis.mset(values)
    return list(values)


def encoded(impressions: int) -> bytes:
    return features.encode(SET, states_of(impressions), 7, np.array([1], U64), NOW).items.tobytes()


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
    await write(server, 1)
    first = await answered(server, 1)
    read, near = counted(metrics.ITEMS_READ), counted(metrics.NEAR_HITS)
    assert await answered(server, 1) == first
    assert (counted(metrics.ITEMS_READ) - read, counted(metrics.NEAR_HITS) - near) == (0, 1)

    keys = await write(server, 2)
    second = await until_read_again(server, 1, first)
    await server.redis.delete(*keys)
    async with asyncio.timeout(5):
        while list((await server.ask([1])).missing_items) != [1]:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    assert second != first
    await write(server, 1)
    async with asyncio.timeout(5):
        while await answered(server, 1) != first:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


async def test_after_a_barrier_nothing_older_is_answered(server: Server) -> None:
    for turn in range(50):
        await write(server, turn)
        await server.redis.hset(redis_keys.BARRIER_KEY, f"b{turn}", NOW)
        await server.wait(f"b{turn}", 1_000)
        seen = await answered(server, 1)
        assert seen == encoded(turn)


async def test_a_flush_and_a_lost_connection_empty_what_was_kept(server: Server) -> None:
    await write(server, 1)
    first = await answered(server, 1)
    await server.redis.client_kill_filter(_type="normal", skipme=True)
    await write(server, 2)
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
    refused = counted(metrics.UNTRACKED)
    await made.open(private_redis.url.replace("redis://", "redis://plain:secret@"))
    await made.ask([])
    assert counted(metrics.UNTRACKED) == refused + 1
    read = counted(metrics.ITEMS_READ)
    for turn in range(3):
        await write(made, turn)
        assert await answered(made, 1) == encoded(turn)
    assert counted(metrics.ITEMS_READ) == read + 3
