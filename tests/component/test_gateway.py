"""The gateway over real gRPC, in front of small real servers that answer, die, hang or talk nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rec.v1 import feature_pb2_grpc, gateway_pb2_grpc, ranking_pb2_grpc, recall_pb2_grpc
from rec.v1.feature_pb2 import GetFeaturesRequest, GetFeaturesResponse
from rec.v1.gateway_pb2 import RecommendRequest, RecommendResponse
from rec.v1.provenance_pb2 import Degradation, RecallSource
from rec.v1.ranking_pb2 import RankRequest, RankResponse
from rec.v1.recall_pb2 import RetrieveRequest, RetrieveResponse
from services.contract import ids
from services.gateway import metrics
from services.gateway.__main__ import start
from services.gateway.settings import GatewaySettings
from services.runtime.grpc_errors import violations_of
from services.runtime.process import Process
from services.runtime.settings import GrpcServerSettings, KafkaSettings
from tests.feature_kit import FEATURES

# Nobody listens there: a gateway needs none.
NO_KAFKA = KafkaSettings(bootstrap_servers="127.0.0.1:1")
Mood = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


def u64(values: Any) -> np.ndarray:
    return np.array(list(values), "<u8")


async def recall_well(request: RetrieveRequest, _context: Any) -> RetrieveResponse:
    found = u64(range(1, request.n + 1))
    tags = np.full(request.n, 1 << RecallSource.RECALL_SOURCE_VECTOR, np.uint8)
    tags[:10] |= 1 << RecallSource.RECALL_SOURCE_POPULAR
    return RetrieveResponse(
        item_ids=found.tobytes(),
        sources=tags.tobytes(),
        degraded=[Degradation(source="recall.fresh", reason="stale")],
    )


async def features_well(request: GetFeaturesRequest, _context: Any) -> GetFeaturesResponse:
    rows = len(request.item_ids) // 8
    return GetFeaturesResponse(
        schema_hash=FEATURES.schema_hash,
        user_features=np.full(FEATURES.user_width, 7, "<f4").tobytes(),
        item_features=np.full((rows, FEATURES.item_width), 3, "<f4").tobytes(),
        missing_items=bytes(rows),
    )


async def rank_well(request: RankRequest, context: grpc.aio.ServicerContext) -> RankResponse:
    loaded = request.arm in ("", "online", "frozen")
    if not loaded and not request.arm_assigned:
        await context.abort(grpc.StatusCode.NOT_FOUND, f"arm {request.arm}: known are frozen, online")
    best = np.sort(np.frombuffer(request.item_ids, "<u8"))[::-1][: request.n]
    response = RankResponse(
        item_ids=best.astype("<u8").tobytes(), scores=np.linspace(0.9, 0.1, len(best)).astype("<f4").tobytes()
    )
    response.provenance.arm = (request.arm or "online") if loaded else "online"
    response.provenance.replica = "r-0"
    response.provenance.model.sequence = 12
    for arm in request.shadow_arms:
        response.shadows.add(arm=arm, scored=True, item_ids=best.tolist())
    return response


class Neighbour:
    """A real gRPC server that plays recall, feature and ranking, each in a mood that a test may change."""

    def __init__(self) -> None:
        self.moods: dict[str, Mood] = {"recall": recall_well, "feature": features_well, "ranking": rank_well}
        self.calls: dict[str, list[Any]] = {name: [] for name in self.moods}
        self.serving = True

    async def _play(self, name: str, request: Any, context: grpc.aio.ServicerContext) -> Any:
        self.calls[name].append(request)
        return await self.moods[name](request, context)

    async def Retrieve(self, request: Any, context: Any) -> Any:
        return await self._play("recall", request, context)

    async def GetFeatures(self, request: Any, context: Any) -> Any:
        return await self._play("feature", request, context)

    async def Rank(self, request: Any, context: Any) -> Any:
        return await self._play("ranking", request, context)

    async def Check(self, request: Any, context: Any) -> health_pb2.HealthCheckResponse:
        return health_pb2.HealthCheckResponse(status=1 if self.serving else 2)

    async def start(self) -> tuple[grpc.aio.Server, int]:
        """One server for all three; the port."""
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])

        class Recall(recall_pb2_grpc.RecallServiceServicer):
            Retrieve = self.Retrieve

        class Feature(feature_pb2_grpc.FeatureServiceServicer):
            GetFeatures = self.GetFeatures

        class Ranking(ranking_pb2_grpc.RankingServiceServicer):
            Rank = self.Rank

        class Health(health_pb2_grpc.HealthServicer):
            Check = self.Check

        recall_pb2_grpc.add_RecallServiceServicer_to_server(Recall(), server)
        feature_pb2_grpc.add_FeatureServiceServicer_to_server(Feature(), server)
        ranking_pb2_grpc.add_RankingServiceServicer_to_server(Ranking(), server)
        health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port


class House:
    """A gateway in its process, the neighbour in front of it, and a client."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.neighbour = Neighbour()

    async def open(self, **overrides: Any) -> None:
        """Starts everything."""
        self.neighbour_server, port = await self.neighbour.start()
        self._stack.push_async_callback(self.neighbour_server.stop, None)
        target = f"127.0.0.1:{port}"
        settings = GatewaySettings(
            **{"grpc": GrpcServerSettings(port=0), "kafka": NO_KAFKA}
            | {f"{name}_target": target for name in ("recall", "feature", "ranking")}
            | overrides
        )
        process = Process(settings)
        self._stack.push_async_callback(process.close)
        self.server = await start(settings, process)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.server.port}")
        self._stack.push_async_callback(channel.close)
        self.stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)

    async def ask(self, timeout: float = 2.0, **fields: Any) -> RecommendResponse:
        """One Recommend."""
        return await self.stub.Recommend(
            RecommendRequest(**{"user_id": 5, "n": 10, "candidates": 100, **fields}), timeout=timeout
        )


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A gateway with everything well."""
    async with AsyncExitStack() as stack:
        built = House(stack)
        await built.open()
        yield built


def degraded(response: RecommendResponse) -> set[str]:
    return {f"{part.source}:{part.reason}" for part in response.provenance.degraded}


def has(mood: str) -> Mood:
    """A mood that aborts with a status."""

    async def play(_request: Any, context: grpc.aio.ServicerContext) -> None:
        await context.abort(grpc.StatusCode[mood], mood)

    return play


async def hangs(_request: Any, _context: Any) -> None:
    await asyncio.Event().wait()


def says(message: Any) -> Mood:
    """A mood that answers with the same message whatever is asked."""

    async def play(_request: Any, _context: Any) -> Any:
        return message

    return play


async def test_a_healthy_loop_answers_scored_items_with_provenance_and_sources(house: House) -> None:
    response = await house.ask(request_id="mine", shadow_arms=["frozen"])
    assert [item.item_id for item in response.items] == list(range(100, 90, -1))
    assert response.items[0].score == pytest.approx(0.9)
    assert list(response.items[0].sources) == [RecallSource.RECALL_SOURCE_VECTOR]
    provenance = response.provenance
    assert response.request_id == provenance.request_id == "mine"
    assert (provenance.scored, provenance.arm, provenance.model.sequence) == (True, "online", 12)
    assert provenance.feature_schema_hash == FEATURES.schema_hash
    assert provenance.served_at.seconds > 0
    assert degraded(response) == {"recall.fresh:stale"}
    assert response.candidates == 100
    assert [shadow.arm for shadow in response.shadows] == ["frozen"]


async def test_columns_ids_user_and_event_time_travel_untouched(house: House) -> None:
    await house.ask(user_key="u-1", user_id=0, **{"occurred_at": {"seconds": 880_000_000, "nanos": 1_999}})
    retrieve, get, rank = (house.neighbour.calls[name][0] for name in ("recall", "feature", "ranking"))
    assert retrieve.request_id == get.request_id == rank.request_id != ""
    for request in (retrieve, get, rank):
        assert (request.occurred_at.seconds, request.occurred_at.nanos) == (880_000_000, 1_000)
    well = await features_well(get, None)
    assert get.item_ids == rank.item_ids
    assert (rank.user_features, rank.item_features) == (well.user_features, well.item_features)
    assert rank.schema_hash == FEATURES.schema_hash
    assert not rank.features_degraded


async def test_a_user_key_reaches_the_services_as_its_hash(house: House) -> None:
    await house.stub.Recommend(RecommendRequest(user_key="u-1", n=1))
    assert house.neighbour.calls["ranking"][0].user_id == ids.hash_key("u-1")


async def test_given_candidates_skip_recall(house: House) -> None:
    response = await house.ask(n=1, candidate_ids=[4, 9, 7])
    assert not house.neighbour.calls["recall"]
    assert [item.item_id for item in response.items] == [9]
    assert list(response.items[0].sources) == [RecallSource.RECALL_SOURCE_REQUEST]
    assert response.candidates == 3


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        (has("UNAVAILABLE"), "unavailable"),
        (has("INTERNAL"), "error"),
        (has("RESOURCE_EXHAUSTED"), "overloaded"),
        (hangs, "deadline"),
        (says(RetrieveResponse(item_ids=b"123", sources=b"1")), "invalid_answer"),
        (says(RetrieveResponse()), "empty"),
    ],
)
async def test_without_recall_its_last_candidates_are_ranked(house: House, mood: Mood, reason: str) -> None:
    await house.ask()
    house.neighbour.moods["recall"] = mood
    response = await house.ask(timeout=0.6)
    assert degraded(response) == {f"recall:{reason}"}
    assert response.provenance.scored
    assert len(response.items) == 10
    assert {tuple(item.sources) for item in response.items} == {(RecallSource.RECALL_SOURCE_FALLBACK,)}


async def test_without_recall_at_a_cold_start_there_is_nothing_to_recommend(house: House) -> None:
    house.neighbour.moods["recall"] = has("UNAVAILABLE")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.ask()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "nothing to recommend" in (caught.value.details() or "")
    assert not house.neighbour.calls["ranking"]


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        (has("UNAVAILABLE"), "unavailable"),
        (hangs, "deadline"),
        (says(GetFeaturesResponse(user_features=b"123")), "invalid_answer"),
    ],
)
async def test_without_features_the_defaults_are_ranked(house: House, mood: Mood, reason: str) -> None:
    house.neighbour.moods["feature"] = mood
    response = await house.ask(timeout=0.6)
    assert degraded(response) == {"recall.fresh:stale", f"feature:{reason}"}
    rank = house.neighbour.calls["ranking"][0]
    assert rank.features_degraded
    assert rank.schema_hash == FEATURES.schema_hash
    matrix = np.frombuffer(rank.item_features, "<f4").reshape(100, FEATURES.item_width)
    assert matrix[99].tolist() == pytest.approx(FEATURES.item_defaults.tolist())
    assert response.provenance.scored


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        (has("UNAVAILABLE"), "unavailable"),
        (has("FAILED_PRECONDITION"), "refused"),
        (hangs, "deadline"),
        (says(RankResponse(item_ids=u64([1] * 10).tobytes(), scores=bytes(40))), "invalid_answer"),
    ],
)
async def test_without_ranking_the_candidates_are_served_unscored(
    house: House, mood: Mood, reason: str
) -> None:
    house.neighbour.moods["ranking"] = mood
    response = await house.ask(timeout=0.6, request_id="mine")
    assert degraded(response) == {"recall.fresh:stale", f"ranking:{reason}"}
    assert not response.provenance.scored
    assert response.provenance.request_id == "mine"
    assert [item.item_id for item in response.items] == list(range(1, 11))
    assert {item.score for item in response.items} == {0.0}


async def test_with_everything_dead_the_fallback_list_is_served(house: House) -> None:
    await house.ask()
    await house.neighbour_server.stop(None)
    response = await house.ask()
    assert degraded(response) == {"recall:unavailable", "feature:unavailable", "ranking:unavailable"}
    assert len(response.items) == 10
    assert not response.provenance.scored


async def test_an_answer_comes_inside_the_deadline_though_every_dependency_hangs(house: House) -> None:
    await house.ask()
    house.neighbour.moods = dict.fromkeys(house.neighbour.moods, hangs)
    began = asyncio.get_running_loop().time()
    response = await house.ask(timeout=0.4)
    assert asyncio.get_running_loop().time() - began < 0.4
    assert degraded(response) == {"recall:deadline", "feature:deadline", "ranking:deadline"}


async def test_a_hanging_dependency_costs_its_timeout_only_until_the_breaker_opens(house: House) -> None:
    house.neighbour.moods["feature"] = hangs
    for _ in range(3):
        assert "feature:deadline" in degraded(await house.ask(timeout=0.3))
    asked = len(house.neighbour.calls["feature"])
    began = asyncio.get_running_loop().time()
    for _ in range(5):
        assert "feature:unavailable" in degraded(await house.ask(timeout=0.3))
    assert asyncio.get_running_loop().time() - began < 0.3
    assert len(house.neighbour.calls["feature"]) == asked


async def test_a_dependency_that_comes_back_is_used_again() -> None:
    async with AsyncExitStack() as stack:
        house = House(stack)
        await house.open(breaker_failures=1, breaker_pause_ms=100)
        house.neighbour.moods["ranking"] = has("INTERNAL")
        assert "ranking:error" in degraded(await house.ask())
        house.neighbour.moods["ranking"] = rank_well
        assert "ranking:unavailable" in degraded(await house.ask())
        await asyncio.sleep(0.15)
        assert (await house.ask()).provenance.scored


async def test_an_unknown_arm_is_the_callers_error(house: House) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.ask(arm="nobody")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "known are frozen, online" in (caught.value.details() or "")


async def test_a_request_without_an_arm_is_drawn_and_one_with_an_arm_gets_it(house: House) -> None:
    counted = metrics.ARMS.labels("online", "default")._value.get()
    await house.ask()
    await house.ask(arm="frozen")
    drawn, asked = house.neighbour.calls["ranking"]
    assert (drawn.arm, drawn.arm_assigned) == ("", True)
    assert (asked.arm, asked.arm_assigned) == ("frozen", False)
    assert metrics.ARMS.labels("online", "default")._value.get() == counted + 1


async def test_bad_fields_are_all_named(house: House) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.ask(n=0, candidates=10_001)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [field for field, _ in violations_of(caught.value)] == ["n", "candidates"]


async def test_event_time_far_from_the_run_is_refused(house: House) -> None:
    await house.ask(occurred_at={"seconds": 880_000_000})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.ask(occurred_at={"seconds": 880_000_000 + 3600})
    assert [field for field, _ in violations_of(caught.value)] == ["occurred_at"]


async def test_more_requests_than_allowed_are_refused_while_health_answers() -> None:
    async with AsyncExitStack() as stack:
        house = House(stack)
        await house.open(grpc=GrpcServerSettings(port=0, max_concurrent_rpcs=1))
        house.neighbour.moods["recall"] = hangs
        answers = await asyncio.gather(*(house.ask(timeout=0.5) for _ in range(4)), return_exceptions=True)
        codes = [error.code() for error in answers if isinstance(error, grpc.aio.AioRpcError)]
        assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 3
        assert await house.health.Check(health_pb2.HealthCheckRequest(), timeout=1)


async def until_serving(house: House) -> None:
    async for answer in house.health.Watch(health_pb2.HealthCheckRequest(), timeout=5):
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return


async def test_it_serves_only_after_its_dependencies_have_and_stays_when_they_die() -> None:
    async with AsyncExitStack() as stack:
        house = House(stack)
        house.neighbour.serving = False
        await house.open()
        await asyncio.sleep(0.3)
        assert not house.server.health.serving
        house.neighbour.serving = True
        await until_serving(house)
        await house.neighbour_server.stop(None)
        await asyncio.sleep(0.3)
        assert house.server.health.serving


async def test_it_serves_with_recall_alone_when_ranking_does_not_come() -> None:
    async with AsyncExitStack() as stack:
        house = House(stack)
        await house.open(ranking_target="127.0.0.1:1", ready_wait_ms=200)
        await until_serving(house)
        assert "ranking:unavailable" in degraded(await house.ask())
