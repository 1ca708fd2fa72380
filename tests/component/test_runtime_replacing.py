"""A replica is replaced while it is called: the new one beside it, the old one drained, no call fails."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from local.ports import free_ports
from rec.v1 import worker_pb2, worker_pb2_grpc
from services.runtime.grpc_client import channel
from services.runtime.grpc_server import GrpcServer
from services.runtime.process import Process
from services.runtime.settings import GrpcClientSettings, GrpcServerSettings, ProcessSettings
from services.runtime.successor import until_free

WORKER = "rec.v1.WorkerService"
FIRST, SECOND = "127.0.0.1", "127.0.0.2"
STATUS = worker_pb2.GetWorkerStatusRequest()


class Worker(worker_pb2_grpc.WorkerServiceServicer):
    """Says its name, a little later."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def GetWorkerStatus(
        self, request: worker_pb2.GetWorkerStatusRequest, context: grpc.aio.ServicerContext
    ) -> worker_pb2.GetWorkerStatusResponse:
        await asyncio.sleep(0.01)
        return worker_pb2.GetWorkerStatusResponse(worker=self._name)


@asynccontextmanager
async def replica(host: str, ports: list[int]) -> AsyncIterator[GrpcServer]:
    """A server of that host, not SERVING yet."""
    port, admin, metrics = ports
    limits = GrpcServerSettings(
        host=host, port=port, admin_port=admin, metrics_port=metrics, lame_duck_ms=300
    )
    process = Process(ProcessSettings(name="test", grpc=limits))
    register = worker_pb2_grpc.add_WorkerServiceServicer_to_server
    server = GrpcServer(limits, process, [(register, Worker(host), WORKER)])
    await server.start()
    try:
        yield server
    finally:
        assert await process.close()


class Caller:
    """Calls all the time, by several tasks; each call may last a second and is not tried again."""

    def __init__(self, target: str) -> None:
        self.channel = channel(target, GrpcClientSettings(reconnect_max_ms=200))
        self._stub = worker_pb2_grpc.WorkerServiceStub(self.channel)
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Caller:
        await asyncio.wait_for(self.channel.channel_ready(), 5)
        self._tasks = [asyncio.create_task(self._call()) for _ in range(8)]
        return self

    async def __aexit__(self, kind: object, value: object, trace: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.channel.close()

    async def _call(self) -> None:
        while True:
            try:
                answer = await self._stub.GetWorkerStatus(STATUS, timeout=1)
                self.answers[answer.worker] += 1
            except grpc.aio.AioRpcError as error:
                self.failures.append(f"{error.code().name} {error.details()}")
                await asyncio.sleep(0.01)

    async def until(self, name: str, more: int) -> None:
        """So many more answers of one replica."""
        wanted, deadline = self.answers[name] + more, time.monotonic() + 10
        while self.answers[name] < wanted:
            assert time.monotonic() < deadline, (self.answers, self.failures)
            await asyncio.sleep(0.01)


async def test_a_replica_is_called_when_it_says_serving_and_left_before_it_refuses() -> None:
    ports = free_ports(3)
    async with replica(FIRST, ports) as old:
        old.set_serving(True)
        async with Caller(f"{FIRST}:{ports[0]},{SECOND}:{ports[0]}") as caller:
            await caller.until(FIRST, 50)
            async with replica(SECOND, ports) as new:
                await asyncio.sleep(1)
                assert caller.answers[SECOND] == 0, "called before it said SERVING"
                new.set_serving(True)
                await caller.until(SECOND, 50)
                assert (old.health.watches, new.health.watches) == (1, 1)
                began = time.monotonic()
                await old.drain()
                assert time.monotonic() - began < 2, "something held the drain"
                await caller.until(SECOND, 100)
                assert caller.failures == []


async def test_a_watch_is_open_until_the_server_stops_and_is_not_asked_for_again_and_again() -> None:
    ports = free_ports(3)
    async with replica(FIRST, ports) as server:
        server.set_serving(True)
        async with Caller(f"{FIRST}:{ports[0]},{SECOND}:{ports[0]}") as caller:
            await caller.until(FIRST, 10)
            seen: set[int] = set()
            opened = server.health.watcher

            def watcher() -> asyncio.Event:
                seen.add(len(seen))
                return opened()

            server.health.watcher = watcher  # type: ignore[method-assign]
            await server.drain()
            assert len(seen) <= 2


async def test_where_nobody_says_serving_the_call_fails_and_says_why() -> None:
    ports = free_ports(3)
    async with replica(FIRST, ports):
        async with channel(f"{FIRST}:{ports[0]},{SECOND}:{ports[0]}") as several:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await worker_pb2_grpc.WorkerServiceStub(several).GetWorkerStatus(STATUS, timeout=3)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        async with channel(f"{FIRST}:{ports[0]}") as single:
            answer = await worker_pb2_grpc.WorkerServiceStub(single).GetWorkerStatus(STATUS, timeout=3)
            assert answer.worker == FIRST, "one address has no other to go to"


async def test_a_successor_waits_until_the_last_port_of_its_predecessor_is_free() -> None:
    ports = free_ports(3)
    limits = GrpcServerSettings(
        port=ports[0], admin_port=ports[1], metrics_port=ports[2], bind_wait_ms=10_000
    )
    async with replica(FIRST, ports) as old:
        waiting = asyncio.create_task(until_free(limits))
        await old.drain()
        await asyncio.sleep(0.3)
        assert not waiting.done(), "its admin port is still there: it may still flush and commit"
    await asyncio.wait_for(waiting, 5)


async def test_a_successor_gives_up_waiting_and_is_told_which_port_is_taken() -> None:
    ports = free_ports(3)
    async with replica(FIRST, ports):
        began = time.monotonic()
        await until_free(
            GrpcServerSettings(port=ports[0], admin_port=ports[1], metrics_port=ports[2], bind_wait_ms=300)
        )
        assert 0.3 <= time.monotonic() - began < 2
