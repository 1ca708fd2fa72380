"""The servers that a request for features is sent to, and what a request costs them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc

from benchmarks.cpu import cpu_s
from benchmarks.features_traffic import Traffic
from benchmarks.service import Service
from local.child import Child
from local.ports import HOST, free_ports
from local.processes import RUNTIME

METHOD = "/rec.v1.FeatureService/GetFeatures"
# Asked before each round, not measured: while the other sides had their turn, what was near became too old.
WARM_UP = 100
# Long: a busy machine shall not turn answers into defaults.
DEADLINE_S = 5.0


class Server:
    """A server process, and a channel to it."""

    def __init__(self, child: Child, target: str) -> None:
        self.child = child
        self._channel = grpc.insecure_channel(target)
        self.call: Callable[..., bytes] = self._channel.unary_unary(METHOD)

    def wait(self) -> None:
        """Until it takes calls."""
        grpc.channel_ready_future(self._channel).result(60)

    def cpu_s(self) -> float:
        """Of the process so far."""
        return cpu_s(self.child.pid)

    def close(self) -> None:
        """Ends it."""
        self._channel.close()
        self.child.stop(5.0)


def features_server(name: str, folder: Path, url: str, near_items: int) -> Server:
    """A feature server of its own, serving."""
    settings = {"REDIS__URL": url, "NEAR_ITEMS": near_items, "FOLLOW_VIEWS": "false"}
    service = Service("services.feature", folder, settings, name)
    return Server(service.child, service.target)


def one_round(server: Server, traffic: Traffic, requests: int, writes: bool) -> tuple[float, list[float]]:
    """(CPU seconds of the server a request, wall seconds of each request)."""
    asked = [traffic.request().SerializeToString() for _ in range(WARM_UP + requests)]
    walls, before = [], 0.0
    for number, one in enumerate(asked):
        if number == WARM_UP:
            before = server.cpu_s()
        if writes:
            traffic.write()
        started = time.perf_counter()
        server.call(one, timeout=DEADLINE_S)
        walls.append(time.perf_counter() - started)
    return (server.cpu_s() - before) / requests, walls[WARM_UP:]


def echo_server(name: str, folder: Path, answer: bytes, more: Sequence[str] = ()) -> Server:
    """A bare server that says ``answer``; ``more``: arguments of features_echo."""
    (port,) = free_ports(1)
    said = folder / "answer"
    said.write_bytes(answer)
    command = [sys.executable, "-m", "benchmarks.features_echo", str(port), str(said), *more]
    child = Child.start(name, command, folder / f"{name}.log", env={**os.environ, **RUNTIME})
    server = Server(child, f"{HOST}:{port}")
    server.wait()
    return server
