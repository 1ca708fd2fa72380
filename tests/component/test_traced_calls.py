"""A gateway and a real ranking, traced: what a real OTLP receiver gets of a request; off, it gets nothing."""

from __future__ import annotations

import inspect
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from prometheus_client import REGISTRY
from ranking_kit import Chain, MemoryLog, MemoryProducer, running, settings_for, until

from rec.v1 import gateway_pb2_grpc
from rec.v1.gateway_pb2 import RecommendRequest
from services.contract.access import SERVICES
from services.contract.trace_ids import SpanRef, root_of, traceparent
from services.gateway.__main__ import start
from services.gateway.settings import GatewaySettings
from services.runtime import tracing
from services.runtime.grpc_client import channel
from services.runtime.grpc_guard import Guard
from services.runtime.otel import SpanKind
from services.runtime.process import Process
from services.runtime.settings import GrpcServerSettings, TracingSettings
from services.runtime.telemetry import configure_logging, get_logger
from services.runtime.traced_calls import ClientSpans
from tests.component.test_gateway import NO_KAFKA, Neighbour
from tests.otlp_kit import Received, Receiver, receiving, traced

SERVER, CLIENT, CONSUMER = 2, 3, 5
RECOMMEND, RANK = "rec.v1.GatewayService/Recommend", "rec.v1.RankingService/Rank"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as opened:
        yield opened


def answers(receiver: Receiver) -> dict[str, Received]:
    """The gateway's spans by request."""
    mine = [span for span in receiver.spans if (span.name, span.kind) == (RECOMMEND, SERVER)]
    return {str(span.attributes["recloop.request_id"]): span for span in mine}


class Way:
    """A gateway, in front of a real ranking and of a neighbour that plays recall and feature."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.neighbour = Neighbour()
        self.seen: list[dict[str, str]] = []

    async def open(self, folder: Path) -> None:
        chain = Chain(folder / "store")
        self.log = MemoryLog()
        self.chain = chain
        manager = running(settings_for(folder), self.log, MemoryProducer(), [chain.release("online", 1)])
        self.replica, _ = await self._stack.enter_async_context(manager)
        played = self.neighbour.moods["recall"]

        async def recall(request, context):
            self.seen.append(dict(context.invocation_metadata()))
            return await played(request, context)

        self.neighbour.moods["recall"] = recall
        server, port = await self.neighbour.start()
        self._stack.push_async_callback(server.stop, None)
        target = f"127.0.0.1:{port}"
        settings = GatewaySettings(
            grpc=GrpcServerSettings(port=0),
            kafka=NO_KAFKA,
            recall_target=target,
            feature_target=target,
            ranking_target=f"127.0.0.1:{self.replica.server.port}",
        )
        process = Process(settings)
        self._stack.push_async_callback(process.close)
        gateway = await start(settings, process)
        client = grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}")
        self._stack.push_async_callback(client.close)
        self.stub = gateway_pb2_grpc.GatewayServiceStub(client)

    async def ask(self, request_id: str, *metadata: tuple[str, str]):
        request = RecommendRequest(user_id=5, n=10, candidates=50, request_id=request_id)
        return await self.stub.Recommend(request, timeout=5, metadata=metadata)


async def test_a_request_is_one_trace_from_the_gateway_through_ranking(tmp_path, receiver) -> None:
    async with AsyncExitStack() as stack:
        active = stack.enter_context(traced(receiver))
        way = Way(stack)
        await way.open(tmp_path)
        answer = await way.ask("r-1")
        assert answer.provenance.scored
        active.flush()
        root = root_of("r-1")
        found = {(span.name, span.kind): span for span in receiver.of(root.trace_id)}
        gateway, call, rank = found[RECOMMEND, SERVER], found[RANK, CLIENT], found[RANK, SERVER]
        # The ids that anybody can tell who has no more than the request's id.
        assert (gateway.ref, gateway.parent) == (root, 0)
        assert gateway.attributes["recloop.request_id"] == "r-1"
        assert call.parent == gateway.ref.span_id
        assert rank.parent == call.ref.span_id
        assert gateway.start_us <= call.start_us <= rank.start_us
        assert rank.end_us <= gateway.end_us
        retrieve = found["rec.v1.RecallService/Retrieve", CLIENT]
        assert way.seen == [way.seen[0]]
        assert way.seen[0]["traceparent"] == traceparent(retrieve.ref)
        assert len(found) == 5


async def test_a_failed_call_is_a_failed_span_and_the_answer_goes_on(tmp_path, receiver) -> None:
    async def dies(_request, context):
        await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    async with AsyncExitStack() as stack:
        active = stack.enter_context(traced(receiver))
        way = Way(stack)
        await way.open(tmp_path)
        way.neighbour.moods["feature"] = dies
        await way.ask("r-1")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await way.stub.Recommend(RecommendRequest(user_id=5, request_id="r-2"), timeout=5)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        active.flush()
        feature = receiver.named("rec.v1.FeatureService/GetFeatures")
        assert feature.failed
        assert feature.attributes["rpc.grpc.status_code"] == grpc.StatusCode.UNAVAILABLE.value[0]
        gateways = answers(receiver)
        assert [gateways[one].failed for one in ("r-1", "r-2")] == [False, True]


async def test_only_the_share_is_traced_and_an_unnamed_request_gets_its_id_first(tmp_path, receiver) -> None:
    async with AsyncExitStack() as stack:
        active = stack.enter_context(traced(receiver, sample_ratio=0.3))
        way = Way(stack)
        await way.open(tmp_path)
        ids = [f"r-{number}" for number in range(40)]
        for one in ids:
            await way.ask(one)
        unnamed = [(await way.ask("")).request_id for _ in range(10)]
        active.flush()
        expected = {one for one in [*ids, *unnamed] if active.sampled_root(one)}
        assert 5 < len(expected) < 30
        assert set(answers(receiver)) == expected
        assert {span.ref.trace_id for span in receiver.spans} == {root_of(one).trace_id for one in expected}
        # Who was not chosen tells nobody of a trace.
        assert sum("traceparent" in one for one in way.seen) == len(expected)


async def test_a_client_of_the_same_trace_is_the_parent_another_is_linked(tmp_path, receiver) -> None:
    async with AsyncExitStack() as stack:
        active = stack.enter_context(traced(receiver))
        way = Way(stack)
        await way.open(tmp_path)
        mine, foreign = SpanRef(root_of("r-1").trace_id, 77), SpanRef(99, 98)
        await way.ask("r-1", ("traceparent", traceparent(mine)))
        await way.ask("r-2", ("traceparent", traceparent(foreign)))
        await way.ask("r-3", ("traceparent", "broken"))
        active.flush()
        found = answers(receiver)
        assert (found["r-1"].parent, found["r-1"].links) == (77, ())
        assert (found["r-2"].ref, found["r-2"].parent, found["r-2"].links) == (root_of("r-2"), 0, (foreign,))
        assert (found["r-3"].ref, found["r-3"].links) == (root_of("r-3"), ())


async def test_an_applied_delta_stands_in_the_trace_that_its_record_names(tmp_path, receiver) -> None:
    async with AsyncExitStack() as stack:
        active = stack.enter_context(traced(receiver))
        way = Way(stack)
        await way.open(tmp_path)
        delta = SpanRef(1 << 100, 42)
        way.log.spans[0] = delta
        way.log.append(way.chain.next(), way.chain.next())
        await until(lambda: way.replica.arms.serving["online"].state.sequence == 2)
        active.flush()
        applied = receiver.named("process model-deltas")
        assert (applied.ref.trace_id, applied.parent) == delta
        assert applied.kind == CONSUMER
        assert applied.attributes["recloop.sequence"] == 1
        assert applied.attributes["recloop.arm"] == "online"


async def test_off_nothing_is_wrapped_and_nothing_is_sent(tmp_path, receiver) -> None:
    assert tracing.active() is None
    async with AsyncExitStack() as stack:
        way = Way(stack)
        await way.open(tmp_path)
        mine = traceparent(root_of("r-1"))
        assert (await way.ask("r-1", ("traceparent", mine))).provenance.scored
        assert [one for one in way.seen if "traceparent" in one] == []
    assert receiver.spans == []


class Handlers:
    """A server that keeps what it is given."""

    def __init__(self) -> None:
        self.found: dict = {}

    def add_registered_method_handlers(self, _service: str, handlers: dict) -> None:
        self.found |= handlers


class Asked(gateway_pb2_grpc.GatewayServiceServicer):
    async def Recommend(self, request, context):
        return None


def under_the_guard() -> object:
    """The function that the guard's handler calls."""
    server, guard = Handlers(), Guard(10)
    guard.stand_before(server)  # type: ignore[arg-type]
    gateway_pb2_grpc.add_GatewayServiceServicer_to_server(Asked(), guard)
    handler = server.found["Recommend"].unary_unary
    return inspect.getclosurevars(handler).nonlocals["behaviour"]


async def test_off_a_call_goes_through_nothing_more_than_before(receiver) -> None:
    assert under_the_guard().__qualname__ == "Asked.Recommend"
    async with channel("127.0.0.1:1") as plain:
        assert plain._unary_unary_interceptors == []
    with traced(receiver):
        assert "traced_handler" in under_the_guard().__qualname__
        async with channel("127.0.0.1:1") as wrapped:
            assert [type(one) for one in wrapped._unary_unary_interceptors] == [ClientSpans]


def test_off_no_process_imports_what_makes_and_sends_spans() -> None:
    names = [*(f"services.{name}.__main__" for name in SERVICES if name != "trainer"), "trainer.wiring"]
    unwanted = ("services.runtime.otel", "opentelemetry.sdk.trace", "opentelemetry.exporter")
    code = (
        f"import sys, importlib\nfor name in {[*names, 'loadgen.trace']}: importlib.import_module(name)\n"
        f"print([one for one in sys.modules if one.startswith({unwanted})])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_a_log_line_inside_a_span_says_which(receiver, capsys) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging("tested")
        log = get_logger("test")
        with traced(receiver) as active:
            span = active.begin("one", SpanKind.INTERNAL, root_of("r-1"))
            with active.inside(span):
                log.info("inside")
                logging.getLogger("library").warning("inside too")
            log.info("outside")
            span.end()
        log.info("off")
    finally:
        root.handlers[:], _ = handlers, root.setLevel(level)
    lines = {line["event"]: line for line in map(json.loads, capsys.readouterr().err.splitlines())}
    ids = {"trace_id": f"{root_of('r-1').trace_id:032x}", "span_id": f"{root_of('r-1').span_id:016x}"}
    for event in ("inside", "inside too"):
        assert {name: lines[event][name] for name in ids} == ids
    assert not {"trace_id", "span_id"} & {*lines["outside"], *lines["off"]}


def test_where_nobody_takes_spans_a_process_ends_in_time_and_counts_them(free_ports) -> None:
    (port,) = free_ports(1)
    settings = TracingSettings(
        endpoint=f"http://127.0.0.1:{port}", sample_ratio=1, max_queue_spans=4, export_timeout_ms=300
    )
    with tracing.configured(settings, "tested") as active:
        assert active is not None
        for _ in range(200):
            active.start("x", SpanKind.INTERNAL).end()
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert REGISTRY.get_sample_value("recloop_trace_spans_dropped_total") > 100
    assert REGISTRY.get_sample_value("recloop_trace_spans_sent_total", {"outcome": "failed"}) > 0
