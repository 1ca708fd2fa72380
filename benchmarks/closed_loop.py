"""A client of a fixed number of callers, each of which asks again as soon as it is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import grpc

from benchmarks.cpu import cpu_of

Call = Callable[[bytes], Awaitable[bytes]]
# One caller's own connection.
Connect = Callable[[], AbstractAsyncContextManager[Call]]
TIMEOUT_S = 10.0
# Answers of a phase that are looked at, spread over it.
LOOKED_AT = 50


@dataclass(frozen=True)
class Phase:
    """One side at one concurrency: what was answered in ``wall_s``. ``latencies_ms``: of each answer;
    ``cpu_s``: by process; ``looked_at``: some of the answers."""

    concurrency: int
    wall_s: float
    latencies_ms: list[float]
    cpu_s: Mapping[str, float]
    looked_at: list[bytes] = field(default_factory=list, repr=False)

    @property
    def requests_per_s(self) -> float:
        """Answers a second."""
        return len(self.latencies_ms) / self.wall_s


async def closed_loop(
    connect: Connect,
    request: Callable[[], bytes],
    pids: Mapping[str, int],
    *,
    concurrency: int,
    seconds: float,
    warm_up_s: float,
) -> Phase:
    """What is answered in ``seconds``, behind ``warm_up_s`` that do not count. A call that fails ends it."""
    latencies: list[float] = []
    answers: list[bytes] = []
    measuring = stopping = False

    async def caller() -> None:
        async with connect() as call:
            while not stopping:
                asked = request()
                # Not loop.time(): uvloop's counts whole milliseconds.
                began = time.perf_counter()
                said = await call(asked)
                if measuring:
                    latencies.append((time.perf_counter() - began) * 1000)
                    answers.append(said)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(caller())
        await asyncio.sleep(warm_up_s)
        before, began, measuring = cpu_of(pids), time.perf_counter(), True
        await asyncio.sleep(seconds)
        measuring, stopping = False, True
        wall_s, after = time.perf_counter() - began, cpu_of(pids)
    used = {name: after[name] - before[name] for name in after}
    return Phase(concurrency, wall_s, latencies, used, answers[:: max(1, len(answers) // LOOKED_AT)])


def grpc_caller(target: str, method: str) -> Connect:
    """Bytes over gRPC; callers of one target share its connection, as the stubs of a process do."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[Call]:
        async with grpc.aio.insecure_channel(target) as channel:
            stub = channel.unary_unary(method)
            yield lambda data: stub(data, timeout=TIMEOUT_S)

    return connect


def http_caller(host: str, port: int, path: str) -> Connect:
    """Bytes by POST over one kept connection of HTTP/1.1, read by Content-Length, as no library is less."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[Call]:
        reader, writer = await asyncio.open_connection(host, port)
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/octet-stream\r\n"

        async def call(data: bytes) -> bytes:
            async with asyncio.timeout(TIMEOUT_S):
                writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
                said = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                body = await reader.readexactly(int(said.partition("content-length:")[2].split()[0]))
            if " 200 " not in said.partition("\r\n")[0]:
                raise ConnectionError(f"{path}: {said.splitlines()[0]}: {body[:500]!r}")
            return body

        try:
            yield call
        finally:
            writer.close()

    return connect
