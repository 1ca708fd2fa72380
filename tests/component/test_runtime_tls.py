"""Mutual TLS on a real server: who gets in, who may call what, and certificates replaced under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from local.certificates import Authority
from rec.v1 import release_pb2, release_pb2_grpc, worker_pb2, worker_pb2_grpc
from services.runtime import grpc_errors
from services.runtime.grpc_client import blocking_channel, channel
from services.runtime.grpc_server import GrpcServer
from services.runtime.settings import TlsSettings
from tests.tls_kit import Town, counted, serial_in, served_serial, start

STATUS = worker_pb2.GetWorkerStatusRequest()
HEALTH = health_pb2.HealthCheckRequest()


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


@pytest.fixture
async def serve(town: Town) -> AsyncIterator[Callable]:
    """Called inside the test: pytest changes stderr between a fixture and its test."""
    async with AsyncExitStack() as stack:

        async def begin(**limits: int) -> GrpcServer:
            process, server = await start(town.files("release"), **limits)
            stack.push_async_callback(process.close)
            return server

        yield begin


async def status(target: str, tls: TlsSettings) -> str:
    async with channel(target, tls=tls) as opened:
        stub = worker_pb2_grpc.WorkerServiceStub(opened)
        return str((await stub.GetWorkerStatus(STATUS, timeout=5)).worker)


def target_of(server: GrpcServer) -> str:
    return f"127.0.0.1:{server.port}"


async def test_a_caller_in_the_table_is_answered(town: Town, serve: Callable) -> None:
    server = await serve()
    assert await status(target_of(server), town.files("operator")) == "w"
    with blocking_channel(target_of(server), town.files("page")) as opened:
        stub = worker_pb2_grpc.WorkerServiceStub(opened)
        answer = await asyncio.to_thread(stub.GetWorkerStatus, STATUS, timeout=5)
    assert answer.worker == "w"


async def test_of_a_list_of_addresses_the_one_that_serves_is_found_by_name_and_health(
    town: Town, serve: Callable
) -> None:
    server = await serve()
    server.set_serving(True)
    for target in (f"127.0.0.1:{server.port},127.0.0.2:{server.port}", f"127.0.0.1:1,{target_of(server)}"):
        assert await status(target, town.files("operator")) == "w"
    with blocking_channel(f"127.0.0.1:1,{target_of(server)}", town.files("page")) as opened:
        stub = worker_pb2_grpc.WorkerServiceStub(opened)
        answer = await asyncio.to_thread(stub.GetWorkerStatus, STATUS, timeout=5)
    assert answer.worker == "w"


@pytest.mark.parametrize("reason", ["plaintext", "no_certificate", "wrong_certificate"])
async def test_who_has_no_certificate_of_ours_is_refused_and_counted(
    town: Town, serve: Callable, reason: str
) -> None:
    target = target_of(await serve())
    stranger = Authority.new("another CA").issue("operator")
    opened = {
        "plaintext": lambda: grpc.aio.insecure_channel(target),
        "no_certificate": lambda: grpc.aio.secure_channel(
            target, grpc.ssl_channel_credentials(town.authority.pem())
        ),
        "wrong_certificate": lambda: grpc.aio.secure_channel(
            target, grpc.ssl_channel_credentials(town.authority.pem(), stranger[1], stranger[0])
        ),
    }[reason]()
    before = counted("tls_refused", reason=reason)
    async with opened:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await worker_pb2_grpc.WorkerServiceStub(opened).GetWorkerStatus(STATUS, timeout=3)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await until(lambda: counted("tls_refused", reason=reason) > before)
    assert await status(target, town.files("operator")) == "w"


async def test_a_client_does_not_talk_to_a_server_that_another_ca_has_signed(
    town: Town, serve: Callable
) -> None:
    server = await serve()
    theirs = Authority.new("another CA").write(town.folder / "theirs", "operator")
    async with channel(target_of(server), tls=theirs) as opened:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await worker_pb2_grpc.WorkerServiceStub(opened).GetWorkerStatus(STATUS, timeout=3)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_known_caller_of_a_foreign_method_is_denied_by_name_and_counted(
    town: Town, serve: Callable
) -> None:
    server = await serve()
    method = "rec.v1.ReleaseService/SetArm"
    before = counted("access_refused", method=method, identity="recall")
    async with channel(target_of(server), tls=town.files("recall")) as opened:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await release_pb2_grpc.ReleaseServiceStub(opened).SetArm(release_pb2.SetArmRequest(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert grpc_errors.reason_of(caught.value) == "FORBIDDEN"
    assert "recall may not call" in (caught.value.details() or "")
    assert counted("access_refused", method=method, identity="recall") == before + 1
    async with channel(target_of(server), tls=town.files("trainer")) as opened:
        await release_pb2_grpc.ReleaseServiceStub(opened).SetArm(release_pb2.SetArmRequest(), timeout=5)


async def test_a_name_that_is_in_no_table_is_denied_and_does_not_become_a_label(
    town: Town, serve: Callable
) -> None:
    server = await serve()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await status(target_of(server), town.files("somebody"))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert counted("access_refused", method="rec.v1.WorkerService/GetWorkerStatus", identity="unknown") >= 1
    assert counted("access_refused", method="rec.v1.WorkerService/GetWorkerStatus", identity="somebody") == 0


async def test_health_is_for_every_identity_and_the_admin_port_says_only_that(
    town: Town, serve: Callable
) -> None:
    server = await serve()
    async with channel(target_of(server), tls=town.files("joiner")) as opened:
        answer = await health_pb2_grpc.HealthStub(opened).Check(HEALTH, timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    async with channel(f"127.0.0.1:{server.admin_port}") as admin:
        answer = await health_pb2_grpc.HealthStub(admin).Check(HEALTH, timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert await refused(admin, "v1") is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_is_for_the_operator(town: Town, serve: Callable, version: str) -> None:
    server = await serve()
    async with channel(target_of(server), tls=town.files("operator")) as opened:
        assert "rec.v1.ReleaseService" in await listed(opened, version)
    async with channel(target_of(server), tls=town.files("loadgen")) as opened:
        assert await refused(opened, version) is grpc.StatusCode.PERMISSION_DENIED


REFLECTION = {
    "request_serializer": reflection_pb2.ServerReflectionRequest.SerializeToString,
    "response_deserializer": reflection_pb2.ServerReflectionResponse.FromString,
}


def reflection_of(version: str) -> str:
    return f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"


async def refused(opened: grpc.aio.Channel, version: str) -> grpc.StatusCode:
    """Asked in one piece: on a stream the client's own writing may fail before it has read the status."""
    call = opened.unary_unary(reflection_of(version), **REFLECTION)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(reflection_pb2.ServerReflectionRequest(list_services=""), timeout=5)
    return caught.value.code()


async def listed(opened: grpc.aio.Channel, version: str) -> set[str]:
    call = opened.stream_stream(reflection_of(version), **REFLECTION)
    asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
    return {
        service.name
        async for answer in call(iter(asked), timeout=5)
        for service in answer.list_services_response.service
    }


async def test_certificates_are_replaced_under_load_without_a_failed_request(
    town: Town, serve: Callable
) -> None:
    # Connections are young, so that each change is met by handshakes in great number.
    server = await serve(max_connection_age_ms=200, max_connection_age_grace_ms=2_000)
    client = town.files("operator")
    answered, failed = 0, []
    stop = asyncio.Event()

    async def load(opened: grpc.aio.Channel) -> None:
        nonlocal answered
        stub = worker_pb2_grpc.WorkerServiceStub(opened)
        while not stop.is_set():
            try:
                await stub.GetWorkerStatus(STATUS, timeout=5)
                answered += 1
            except grpc.aio.AioRpcError as error:
                failed.append(f"{error.code().name}: {error.details()}")
            await asyncio.sleep(0.002)

    async with channel(target_of(server), tls=client, idempotent=["rec.v1.WorkerService"]) as opened:
        tasks = [asyncio.create_task(load(opened)) for _ in range(4)]
        seen = {await asyncio.to_thread(served_serial, server.port, client)}
        for _ in range(5):
            town.files("operator")
            wanted = serial_in(town.files("release"))
            deadline, enough = time.monotonic() + 20, answered + 60
            while wanted not in seen or answered < enough:
                assert time.monotonic() < deadline, "the new certificate is not served"
                await asyncio.sleep(0.05)
                seen.add(await asyncio.to_thread(served_serial, server.port, client))
        stop.set()
        await asyncio.gather(*tasks)
    assert len(seen) >= 6
    assert failed == []
    assert answered >= 300


async def test_half_of_new_files_changes_nothing_until_the_other_half_is_there(
    town: Town, serve: Callable
) -> None:
    server, operator = await serve(), town.files("operator")
    files = town.files("release")
    old, deadline = serial_in(files), time.monotonic() + 5
    while await asyncio.to_thread(served_serial, server.port, operator) != old:
        assert time.monotonic() < deadline
    certificate, key = town.authority.issue("release")
    before = counted("tls_reloads", outcome="refused")
    put(files.certificate_file, certificate)
    deadline = time.monotonic() + 5
    while counted("tls_reloads", outcome="refused") == before:
        assert time.monotonic() < deadline
        assert await asyncio.to_thread(served_serial, server.port, operator) == old
        await asyncio.sleep(0.05)
    put(files.key_file, key)
    wanted = serial_in(files)
    while await asyncio.to_thread(served_serial, server.port, operator) != wanted:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def put(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)


async def until(holds: Callable[[], bool], within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
