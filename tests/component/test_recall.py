"""Recall over real gRPC with a real Redis; catalogue and vectors are put in place by the test."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import numpy as np
import pytest
import redis as redis_client

from rec.v1 import recall_pb2_grpc
from rec.v1.recall_pb2 import GetRecallStatusRequest, RetrieveRequest, RetrieveResponse
from services.contract import delta, model_schema, redis_keys
from services.contract.view_clicks import last_clicks_view
from services.recall.catalogue import Catalogue
from services.recall.co_click import CoClicks
from services.recall.near_lists import NearLists
from services.recall.popular import PopularItems
from services.recall.retriever import Retriever
from services.recall.servicer import RecallServicer
from services.recall.settings import RecallSettings
from services.recall.sorted_sets import SortedSets
from services.recall.sources import Source
from services.recall.vectors import VectorModel, VectorSource, VectorVersion
from services.runtime.clock import RunClock
from services.runtime.grpc_errors import violations_of
from services.runtime.grpc_server import GrpcServer
from services.runtime.process import Process
from services.runtime.redis_reader import RedisReader
from services.runtime.settings import GrpcServerSettings, RedisSettings
from tests.feature_kit import FEATURES, clicked, states_of

pytestmark = pytest.mark.integration

ITEMS = 3_000
USER = 5
FACTORS = model_schema.RECALL_FACTORS
NOW_US = 1_700_000_000_000_000
NEAR_S = 0.2


def member(item_id: int) -> bytes:
    return item_id.to_bytes(8, "little")


def version(sequence: int) -> VectorVersion:
    return VectorVersion(1, "online", sequence, NOW_US, NOW_US)


def vector_model() -> VectorModel:
    """Users 1..10 and items 1..2000 with random rows."""
    generator = np.random.default_rng(3)
    model = VectorModel(version(0))
    for table, count in (("user", 10), ("item", 2000)):
        rows = generator.standard_normal((count, model_schema.ROW_WIDTH)).astype(np.float32)
        model.load(table, np.arange(1, count + 1, dtype=np.uint64), rows)
    return model


def item_change(item_id: int, bias: float) -> delta.TableChange:
    """A delta's row that only has a bias."""
    row = np.zeros((1, model_schema.ROW_WIDTH), np.float32)
    row[0, model_schema.RECALL_BIAS.start] = bias
    zeros = np.zeros((1, model_schema.OPTIMIZER_WIDTH), np.float32)
    one = np.ones(1, np.uint32)
    return delta.TableChange("item", np.array([item_id], np.uint64), row, zeros, one, np.zeros(1, np.int64))


class House:
    """Recall's parts, wired as in __main__ but for Kafka."""

    def __init__(self, redis_url: str) -> None:
        self.settings = RecallSettings(
            grpc=GrpcServerSettings(port=0),
            redis=RedisSettings(url=redis_url, timeout_ms=300, connect_timeout_ms=300),
            popular_stale_ms=300,
        )
        self.catalogue = Catalogue(self.settings.fresh_keep)
        for item_id in range(1, ITEMS + 1):
            self.catalogue.put(item_id, NOW_US - (ITEMS - item_id))
        self.vectors = VectorSource()
        self.vectors.swap(vector_model())
        self.ready = True

    async def open(self, stack: AsyncExitStack) -> None:
        """Starts the server and a client."""
        process = Process(self.settings)
        stack.push_async_callback(process.close)
        redis = RedisReader(self.settings.redis, self.settings.max_reads)
        stack.push_async_callback(redis.close)
        stack.push_async_callback(self.vectors.close)
        sets = SortedSets(redis, self.settings.redis.timeout_ms / 1000)
        self.popular = PopularItems(sets, lambda: NOW_US, keep=2_000, half_life_us=1_200_000_000, stale_s=0.3)
        self.co_clicks = CoClicks(redis, sets, last_clicks_view(FEATURES), 30, NearLists(100, NEAR_S))
        servicer = RecallServicer(
            self.settings,
            retriever=Retriever(
                self.settings,
                vectors=self.vectors,
                popular=self.popular,
                catalogue=self.catalogue,
                co_clicks=self.co_clicks,
            ),
            catalogue=self.catalogue,
            vectors=self.vectors,
            run_clock=RunClock(1.0),
            is_ready=lambda: self.ready,
        )
        add = recall_pb2_grpc.add_RecallServiceServicer_to_server
        server = GrpcServer(self.settings.grpc, process, [(add, servicer, "rec.v1.RecallService")])
        await server.start()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        stack.push_async_callback(channel.close)
        self.stub = recall_pb2_grpc.RecallServiceStub(channel)
        await self.popular.refresh()

    async def ask(self, n: int = 1000, user_id: int = USER, request_id: str = "r") -> RetrieveResponse:
        """One Retrieve."""
        request = RetrieveRequest(request_id=request_id, user_id=user_id, n=n)
        return await self.stub.Retrieve(request, timeout=2)


@pytest.fixture
async def house(redis_url: str) -> AsyncIterator[House]:
    """Everything well: popular items 2501..2600; 2701..2720 clicked together with the last click."""
    with redis_client.Redis.from_url(redis_url) as client:
        hop = redis_keys.popular_hop(NOW_US)
        client.zadd(redis_keys.popular_key(hop), {member(2500 + i): 1000 - i for i in range(1, 101)})
        view = last_clicks_view(FEATURES)
        entity = USER.to_bytes(8, "little")
        states = states_of([clicked(USER, 2700, 0, NOW_US, 1)])
        client.set(redis_keys.view_key(view, entity), states[view.name, entity])
        together = {member(2700 + i): 100 - i for i in range(21)}
        client.zadd(redis_keys.co_click_key(2700), together)
    async with AsyncExitStack() as stack:
        built = House(redis_url)
        await built.open(stack)
        yield built


def tagged(response: RetrieveResponse) -> dict[int, int]:
    ids = np.frombuffer(response.item_ids, "<u8").tolist()
    assert len(set(ids)) == len(ids)
    return dict(zip(ids, response.sources, strict=True))


def of(response: RetrieveResponse, source: Source) -> list[int]:
    return [item for item, tag in tagged(response).items() if tag & source.bit]


def degraded(response: RetrieveResponse) -> set[str]:
    return {f"{part.source}:{part.reason}" for part in response.degraded}


async def test_every_source_gives_its_part_of_a_thousand_distinct_candidates(house: House) -> None:
    response = await house.ask()
    assert len(tagged(response)) == 1000
    assert not degraded(response)
    assert len(of(response, Source.VECTOR)) >= 500
    assert set(of(response, Source.POPULAR)) == set(range(2501, 2601))
    assert set(of(response, Source.CO_CLICK)) == set(range(2701, 2721))
    assert len(of(response, Source.FRESH)) >= 100
    assert len(of(response, Source.EXPLORATION)) == 100
    assert response.model.lineage.generation == 1


async def test_vector_candidates_are_those_of_brute_force(house: House) -> None:
    model = vector_model()
    user = model.users.get(USER)
    assert user is not None
    scores = model.items.rows[:, :FACTORS] @ user + model.items.rows[:, FACTORS]
    expected = model.items.ids[np.argsort(-scores)[:400]]
    assert set(expected.tolist()) <= set(of(await house.ask(), Source.VECTOR))


async def test_the_same_request_id_gives_the_same_answer(house: House) -> None:
    first, again, other = await house.ask(), await house.ask(), await house.ask(request_id="other")
    assert (first.item_ids, first.sources) == (again.item_ids, again.sources)
    assert of(first, Source.EXPLORATION) != of(other, Source.EXPLORATION)


async def test_an_unknown_user_gets_a_full_answer_and_no_error(house: House) -> None:
    response = await house.ask(user_id=999_999)
    assert len(tagged(response)) == 1000
    assert not degraded(response)
    assert not of(response, Source.CO_CLICK)


async def test_a_new_item_is_found_by_vector_as_soon_as_its_delta_is_applied(house: House) -> None:
    assert 77_777 not in tagged(await house.ask())
    model = vector_model()
    house.vectors.swap(model)
    await house.vectors.do(lambda: model.apply([item_change(77_777, 100.0)], version(1)))
    response = await house.ask()
    assert np.frombuffer(response.item_ids, "<u8")[0] == 77_777
    assert tagged(response)[77_777] == Source.VECTOR.bit
    assert response.model.sequence == 1


async def test_a_new_item_of_the_catalogue_is_fresh_at_once_and_a_withdrawn_one_is_gone(house: House) -> None:
    house.catalogue.put(88_888, NOW_US)
    assert 88_888 in of(await house.ask(), Source.FRESH)
    best = of(await house.ask(), Source.VECTOR)[0]
    house.catalogue.withdraw(best)
    assert best not in tagged(await house.ask())


async def test_a_small_catalogue_is_answered_whole(house: House) -> None:
    assert len(tagged(await house.ask(n=10_000))) == ITEMS


async def test_without_vectors_the_other_sources_fill_in(house: House) -> None:
    house.vectors._model = None
    response = await house.ask()
    assert degraded(response) == {"recall.vector:unavailable"}
    assert len(tagged(response)) == 1000
    assert not response.HasField("model")


async def test_vectors_that_wait_for_repair_are_named_stale(house: House) -> None:
    house.vectors.stale = True
    response = await house.ask()
    assert degraded(response) == {"recall.vector:stale"}
    assert of(response, Source.VECTOR)


async def test_a_busy_vector_thread_costs_no_more_than_its_budget(house: House) -> None:
    blocking = asyncio.ensure_future(house.vectors.do(lambda: time.sleep(1.0)))
    began = time.monotonic()
    response = await house.ask()
    assert time.monotonic() - began < 0.9
    assert degraded(response) == {"recall.vector:deadline"}
    assert len(tagged(response)) == 1000
    await blocking


async def test_a_new_neighbour_is_proposed_when_what_was_read_has_aged(house: House, redis_url: str) -> None:
    assert 2_999 not in of(await house.ask(), Source.CO_CLICK)
    with redis_client.Redis.from_url(redis_url) as client:
        client.zadd(redis_keys.co_click_key(2700), {member(2_999): 500})
    await asyncio.sleep(NEAR_S)
    assert 2_999 in of(await house.ask(), Source.CO_CLICK)


async def test_neighbours_that_are_near_are_not_read_again(house: House, redis_url: str) -> None:
    await house.ask()
    with redis_client.Redis.from_url(redis_url) as client:
        before = client.info("commandstats")["cmdstat_eval"]["calls"]
        house.co_clicks._near._max_age_s = 60.0
        assert set(of(await house.ask(), Source.CO_CLICK)) == set(range(2701, 2721))
        assert client.info("commandstats")["cmdstat_eval"]["calls"] == before


async def test_slow_co_clicks_are_left_out(house: House) -> None:
    async def never(_user_id: int, _k: int) -> np.ndarray:
        await asyncio.Event().wait()
        raise AssertionError

    house.co_clicks.propose = never  # type: ignore[method-assign]
    began = time.monotonic()
    assert degraded(await house.ask()) == {"recall.co_click:deadline"}
    assert time.monotonic() - began < 0.3


async def test_without_redis_vectors_fresh_and_exploration_go_on(private_redis) -> None:
    async with AsyncExitStack() as stack:
        house = House(private_redis.url)
        await house.open(stack)
        assert not degraded(await house.ask())
        private_redis.kill()
        # The next request meets the dead server, later ones do not try.
        assert "recall.co_click:unavailable" in degraded(await house.ask())
        assert not await house.popular.refresh()
        await asyncio.sleep(0.35)
        response = await house.ask()
        assert degraded(response) == {"recall.popular:stale", "recall.co_click:unavailable"}
        assert len(tagged(response)) == 1000
        private_redis.start()
        assert await house.popular.refresh()
        assert not degraded(await house.ask())


async def test_a_redis_that_hangs_is_given_up_and_found_again(private_redis) -> None:
    async with AsyncExitStack() as stack:
        house = House(private_redis.url)
        await house.open(stack)
        assert await house.popular.refresh()
        os.kill(private_redis.child.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert not await house.popular.refresh()
            assert time.monotonic() - began < 2
            assert "recall.co_click:unavailable" in degraded(await house.ask())
        finally:
            os.kill(private_redis.child.pid, signal.SIGCONT)
        assert await house.popular.refresh()
        assert not degraded(await house.ask())


async def test_it_refuses_before_it_is_ready(house: House) -> None:
    house.ready = False
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.ask()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("n", [0, 10_001])
async def test_a_bad_n_is_named(house: House, n: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.ask(n=n, request_id="x" * 65)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [field for field, _ in violations_of(caught.value)] == ["n", "request_id"]


async def test_status_tells_what_the_sources_hold(house: House) -> None:
    status = await house.stub.GetRecallStatus(GetRecallStatusRequest())
    assert (status.catalogue_items, status.vector_items) == (ITEMS, 2000)
    assert status.source_sizes["popular"] == 100
    assert status.model.lineage.policy == "online"
    assert status.applied_at.seconds == NOW_US // 1_000_000
