"""A real server and real channels on loopback: health, reflection, limits, errors, drain."""

from __future__ import annotations

import asyncio
import socket
import time
import urllib.request
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from rec.v1 import ranking_pb2, ranking_pb2_grpc, worker_pb2, worker_pb2_grpc
from services.contract import errors
from services.runtime import grpc_errors
from services.runtime.grpc_client import channel, remaining_s
from services.runtime.grpc_server import GrpcServer
from services.runtime.process import Process
from services.runtime.settings import GrpcClientSettings, GrpcServerSettings, ProcessSettings

WORKER = "rec.v1.WorkerService"
RANKING = "rec.v1.RankingService"
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING


class Worker(worker_pb2_grpc.WorkerServiceServicer):
    """Does what the test tells it."""

    def __init__(self) -> None:
        self.behave: Callable[[grpc.aio.ServicerContext], object] = lambda context: None
        self.gate: asyncio.Event | None = None
        self.entered = 0
        self._changed = asyncio.Condition()

    async def wait_entered(self, calls: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.entered >= calls)

    async def GetWorkerStatus(
        self, request: worker_pb2.GetWorkerStatusRequest, context: grpc.aio.ServicerContext
    ) -> worker_pb2.GetWorkerStatusResponse:
        self.entered += 1
        async with self._changed:
            self._changed.notify_all()
        self.behave(context)
        if self.gate is not None:
            await self.gate.wait()
        return worker_pb2.GetWorkerStatusResponse(worker="w")


class Ranking(ranking_pb2_grpc.RankingServiceServicer):
    """Streams for ever."""

    async def WatchApplied(
        self, request: ranking_pb2.WatchAppliedRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[ranking_pb2.WatchAppliedResponse]:
        yield ranking_pb2.WatchAppliedResponse(rows=1)
        await asyncio.Event().wait()


class Rig:
    """A started server with a channel to each port."""

    def __init__(self, worker: Worker, process: Process, server: GrpcServer) -> None:
        self.worker, self.process, self.server = worker, process, server
        self.channel = channel(f"127.0.0.1:{server.port}")
        self.admin = channel(f"127.0.0.1:{server.admin_port}")
        self.stub = worker_pb2_grpc.WorkerServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        self.admin_health = health_pb2_grpc.HealthStub(self.admin)

    async def call(self, timeout: float = 5.0) -> worker_pb2.GetWorkerStatusResponse:
        return await self.stub.GetWorkerStatus(worker_pb2.GetWorkerStatusRequest(), timeout=timeout)

    async def status(self, stub: health_pb2_grpc.HealthStub, service: str = "") -> int:
        return (await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)).status

    async def fails(self, error: Exception) -> grpc.aio.AioRpcError:
        def behave(_context: grpc.aio.ServicerContext) -> None:
            raise error

        self.worker.behave = behave
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call()
        return caught.value


def settings(**limits: int) -> ProcessSettings:
    return ProcessSettings(name="test", grpc=GrpcServerSettings(port=0, **limits))


@pytest.fixture
async def make() -> AsyncIterator[Callable]:
    rigs: list[Rig] = []

    async def start(**limits: int) -> Rig:
        worker = Worker()
        process = Process(settings(**limits))
        server = GrpcServer(
            process.settings.grpc,
            process,
            [
                (worker_pb2_grpc.add_WorkerServiceServicer_to_server, worker, WORKER),
                (ranking_pb2_grpc.add_RankingServiceServicer_to_server, Ranking(), RANKING),
            ],
        )
        await server.start()
        rigs.append(Rig(worker, process, server))
        return rigs[-1]

    yield start
    for rig in rigs:
        await rig.channel.close()
        await rig.admin.close()
        assert await rig.process.close()


async def test_a_server_starts_not_serving_and_says_so_on_both_ports(make: Callable) -> None:
    rig = await make()
    for stub in (rig.health, rig.admin_health):
        assert await rig.status(stub) == NOT_SERVING
        assert await rig.status(stub, WORKER) == NOT_SERVING
        assert await rig.status(stub, "liveness") == SERVING
    rig.server.set_serving(True)
    for stub in (rig.health, rig.admin_health):
        assert await rig.status(stub) == SERVING
        assert await rig.status(stub, WORKER) == SERVING


async def test_health_of_an_unknown_service_is_not_found(make: Callable) -> None:
    rig = await make()
    for stub in (rig.health, rig.admin_health):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rig.status(stub, "rec.v1.Nothing")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("port", ["channel", "admin"])
async def test_health_watch_tells_each_change(make: Callable, port: str) -> None:
    rig = await make()
    stub = health_pb2_grpc.HealthStub(getattr(rig, port))
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=WORKER), timeout=10)
    assert (await watch.read()).status == NOT_SERVING
    rig.server.set_serving(True)
    assert (await watch.read()).status == SERVING
    rig.server.set_serving(False)
    assert (await watch.read()).status == NOT_SERVING
    watch.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_and_describes_every_service(make: Callable, version: str) -> None:
    rig = await make()
    name = f"grpc.reflection.{version}.ServerReflection"
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=WORKER),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=name),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"{WORKER}.GetWorkerStatus"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"{WORKER}.Nothing"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="Nothing"),
    ]
    call = rig.channel.stream_stream(
        f"/{name}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(iter(requests), timeout=5)
    answers = [answer async for answer in call]
    listed = {service.name for service in answers[0].list_services_response.service}
    assert {WORKER, RANKING, "grpc.health.v1.Health", name} <= listed
    assert len(answers[1].file_descriptor_response.file_descriptor_proto) >= 2
    assert version.encode() in answers[2].file_descriptor_response.file_descriptor_proto[0]
    assert answers[3].file_descriptor_response == answers[1].file_descriptor_response, "by a method's name"
    assert [one.error_response.error_code for one in answers[4:]] == [grpc.StatusCode.NOT_FOUND.value[0]] * 2


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (errors.InvalidInput.one("n", 0, "1 to 500"), "INVALID_ARGUMENT", "INVALID_INPUT"),
        (errors.SchemaMismatch.one("schema_hash", 1, "2"), "INVALID_ARGUMENT", "SCHEMA_MISMATCH"),
        (errors.Overloaded("full"), "RESOURCE_EXHAUSTED", "OVERLOADED"),
        (errors.Unavailable("away"), "UNAVAILABLE", "UNAVAILABLE"),
        (errors.DeadlineSpent("spent"), "DEADLINE_EXCEEDED", "DEADLINE_SPENT"),
        (errors.NotFound("none"), "NOT_FOUND", "NOT_FOUND"),
        (errors.Conflict("older"), "FAILED_PRECONDITION", "CONFLICT"),
        (TimeoutError(), "DEADLINE_EXCEEDED", "TIMEOUT_ERROR"),
    ],
)
async def test_each_error_of_the_tree_has_its_status_and_details(
    make: Callable, error: Exception, code: str, reason: str
) -> None:
    got = await (await make()).fails(error)
    assert got.code().name == code
    assert grpc_errors.reason_of(got) == reason


async def test_violations_are_named_one_by_one(make: Callable) -> None:
    violations = [errors.FieldViolation("n", "0", "1 to 500"), errors.FieldViolation("arm", "x", "known")]
    got = await (await make()).fails(errors.InvalidInput(violations))
    assert grpc_errors.violations_of(got) == [("n", "0: 1 to 500"), ("arm", "x: known")]


async def test_a_thousand_violations_still_fit_into_the_trailers(make: Callable) -> None:
    violations = [errors.FieldViolation(f"items[{i}].id", "0" * 100, "above 0") for i in range(1000)]
    got = await (await make()).fails(errors.InvalidInput(violations))
    assert got.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert grpc_errors.violations_of(got)[-1][1].startswith("and 9")


async def test_an_unexpected_error_is_internal_and_keeps_its_text_to_itself(make: Callable) -> None:
    got = await (await make()).fails(RuntimeError("password=1234"))
    assert got.code() is grpc.StatusCode.INTERNAL
    assert "1234" not in (got.details() or "")


async def test_calls_above_the_limit_are_refused_while_health_answers(make: Callable) -> None:
    rig = await make(max_concurrent_rpcs=2)
    rig.worker.gate = asyncio.Event()
    first = [asyncio.create_task(rig.call()) for _ in range(2)]
    await rig.worker.wait_entered(2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.call()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert grpc_errors.reason_of(caught.value) == "OVERLOADED"
    assert await rig.status(rig.health, "liveness") == SERVING
    rig.worker.gate.set()
    assert [answer.worker for answer in await asyncio.gather(*first)] == ["w", "w"]
    assert (await rig.call()).worker == "w"


async def test_an_oversized_message_is_refused(make: Callable) -> None:
    rig = await make(max_message_bytes=1000)
    big = rig.channel.unary_unary(f"/{WORKER}/GetWorkerStatus")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await big(b"x" * 2000, timeout=5)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_admin_port_answers_while_the_event_loop_is_stuck(make: Callable) -> None:
    rig = await make(loop_stall_ms=300)
    rig.server.set_serving(True)

    def ask() -> int:
        with grpc.insecure_channel(f"127.0.0.1:{rig.server.admin_port}") as sync_channel:
            stub = health_pb2_grpc.HealthStub(sync_channel)
            time.sleep(0.7)  # the loop is stuck meanwhile
            return stub.Check(health_pb2.HealthCheckRequest(service="liveness"), timeout=5).status

    asked = asyncio.get_running_loop().run_in_executor(None, ask)
    time.sleep(1.2)  # noqa: ASYNC251 - this is the stuck loop
    assert await asked == NOT_SERVING


async def test_channelz_and_metrics_show_the_calls(make: Callable) -> None:
    rig = await make()
    await rig.call()
    found = await channelz_pb2_grpc.ChannelzStub(rig.admin).GetServers(
        channelz_pb2.GetServersRequest(), timeout=5
    )
    assert sum(server.data.calls_started for server in found.server) >= 1
    url = f"http://127.0.0.1:{rig.server.metrics_port}/metrics"

    def fetch() -> str:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()

    text = await asyncio.to_thread(fetch)
    labels = f'grpc_code="OK",grpc_method="GetWorkerStatus",grpc_service="{WORKER}",grpc_type="unary"'
    assert f"grpc_server_handled_total{{{labels}}}" in text
    assert "grpc_server_started_total{" in text
    assert "grpc_server_handling_seconds_bucket{" in text
    assert "recloop_event_loop_lag_seconds" in text


async def test_a_drain_finishes_calls_in_progress_and_ends_streams(make: Callable) -> None:
    rig = await make()
    rig.server.set_serving(True)
    rig.worker.gate = asyncio.Event()
    call = asyncio.create_task(rig.call())
    stream = ranking_pb2_grpc.RankingServiceStub(rig.channel).WatchApplied(ranking_pb2.WatchAppliedRequest())
    assert (await stream.read()).rows == 1
    await rig.worker.wait_entered(1)
    began = time.monotonic()
    drain = asyncio.create_task(rig.server.drain())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await rig.status(rig.admin_health) == NOT_SERVING
    assert not drain.done()
    rig.worker.gate.set()
    assert (await call).worker == "w"
    await drain
    assert time.monotonic() - began < 2
    assert await rig.status(rig.admin_health, "liveness") == SERVING


async def test_a_taken_port_is_named(make: Callable) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = Process(
            ProcessSettings(name="t", grpc=GrpcServerSettings(port=port, admin_port=0, metrics_port=0))
        )
        server = GrpcServer(process.settings.grpc, process, [])
        with pytest.raises(errors.Unavailable, match=str(port)):
            await server.start()
        assert await process.close()


async def test_what_is_left_of_a_deadline_is_passed_on(make: Callable) -> None:
    rig = await make()
    seen: list[float] = []

    async def left(timeout: float | None, **limits: float) -> float:
        rig.worker.behave = lambda context: seen.append(remaining_s(context, **limits))
        await rig.call(timeout=timeout)
        return seen[-1]

    assert 1.0 < await left(2.0, default_s=9.0, reserve_s=0.1) <= 1.9
    assert await left(None, default_s=9.0) == 9.0
    assert await left(2.0, default_s=0.5) == 0.5, "as long as one without a deadline, and no longer"
    assert 1.0 < await left(2.0, default_s=0.5, longest_s=9.0) < 3.0
    assert await left(2.0, default_s=0.5, longest_s=0.7) == 0.7
    assert await left(None, default_s=0.5, longest_s=9.0) == 0.5


async def test_a_spent_deadline_is_an_error_not_a_negative_timeout(make: Callable) -> None:
    rig = await make()
    rig.worker.behave = lambda context: remaining_s(context, default_s=1.0, reserve_s=60.0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.call(timeout=2.0)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_idempotent_calls_are_retried_and_others_are_not(make: Callable) -> None:
    rig = await make()

    def away(_context: grpc.aio.ServicerContext) -> None:
        raise errors.Unavailable("away")

    rig.worker.behave = away
    target = f"127.0.0.1:{rig.server.port}"
    for names, tries in (((), 1), ((WORKER,), 3), ((f"{WORKER}/GetWorkerStatus",), 3)):
        rig.worker.entered = 0
        async with channel(target, GrpcClientSettings(), idempotent=names) as opened:
            stub = worker_pb2_grpc.WorkerServiceStub(opened)
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.GetWorkerStatus(worker_pb2.GetWorkerStatusRequest(), timeout=5)
        assert rig.worker.entered == tries
