"""The sides of bench_loop: what is started, asked and looked at."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from benchmarks import bare_chain
from benchmarks.closed_loop import Connect, grpc_caller, http_caller
from benchmarks.loop_world import Visits
from local.child import Child
from local.errors import StartFailed
from local.paths import REPOSITORY
from local.ports import HOST, free_ports, is_free
from local.processes import RUNTIME
from local.redis_server import RedisServer
from local.stack import Stack
from rec.v1 import gateway_pb2

CANDIDATES, SERVED = bare_chain.CANDIDATES, bare_chain.SERVED
READY_S = 60.0
# Feast writes 100,000 items one after another.
FILLED_S = 300.0
# A broker speaks up once a second.
HEARD_S = 1.2


@dataclass(frozen=True)
class Side:
    """``request``: the next one; ``wrong``: what an answer lacks, empty when it is whole."""

    connect: Connect
    request: Callable[[], bytes]
    wrong: Callable[[bytes], str]
    pids: Mapping[str, int]


class Loop:
    """A running stack whose trainer and joiner are paused."""

    PAUSED = ("trainer", "joiner")

    def __init__(self, stack: Stack, visits: Visits) -> None:
        self._children = stack.children
        asked = [
            gateway_pb2.RecommendRequest(user_id=user, n=SERVED, candidates=CANDIDATES).SerializeToString()
            for user in visits.users[visits.order].tolist()
        ]
        self.side = Side(
            grpc_caller(stack.addresses.target("gateway"), "/rec.v1.GatewayService/Recommend"),
            itertools.cycle(asked).__next__,
            _wrong_recommendation,
            {name: child.pid for name, child in self._children.items()},
        )

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While the trainer and the joiner stand still."""
        self._send(self.PAUSED, signal.SIGSTOP)
        try:
            yield
        finally:
            self._send(self.PAUSED, signal.SIGCONT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """While all the others do as well: a peer has the machine to itself. For less than the 6 s after
        which the broker counts as dead; it is heard of again before this returns."""
        others = [name for name in self._children if name not in self.PAUSED]
        self._send(others, signal.SIGSTOP)
        try:
            yield
        finally:
            self._send(others, signal.SIGCONT)
            time.sleep(HEARD_S)

    def _send(self, names: tuple[str, ...] | list[str], number: int) -> None:
        for name in names:
            self._children[name].send(number)


def _wrong_recommendation(data: bytes) -> str:
    said = gateway_pb2.RecommendResponse.FromString(data)
    if len(said.items) != SERVED or said.candidates != CANDIDATES:
        return f"{len(said.items)} items of {said.candidates} candidates"
    if not said.provenance.scored:
        return "unscored"
    return ", ".join(f"{part.source}:{part.reason}" for part in said.provenance.degraded)


class BareChain:
    """The four processes of bare_chain."""

    def __init__(self, world: Path, order: np.ndarray, folder: Path) -> None:
        ports = dict(zip(bare_chain.ROLES, free_ports(len(bare_chain.ROLES)), strict=True))
        targets = {role: f"{HOST}:{port}" for role, port in ports.items()}
        inner = [targets[role] for role in ("recall", "features", "ranking")]
        self._children = {
            role: Child.start(
                f"bare {role}",
                [sys.executable, "-m", "benchmarks.bare_chain", role, str(port), str(world), *inner],
                folder / f"bare-{role}.log",
                env={**os.environ, **RUNTIME},
                cwd=REPOSITORY,
            )
            for role, port in ports.items()
        }
        for target in targets.values():
            with grpc.insecure_channel(target) as channel:
                grpc.channel_ready_future(channel).result(READY_S)
        asked = [bare_chain.request(user) for user in order.tolist()]
        self.side = Side(
            grpc_caller(targets["gateway"], bare_chain.METHOD),
            itertools.cycle(asked).__next__,
            _wrong_bytes,
            {role: child.pid for role, child in self._children.items()},
        )

    def close(self) -> None:
        """Ends the processes."""
        for child in self._children.values():
            child.stop(5.0)


class AssembledStack:
    """The process of assembled_stack, by an interpreter of its own environment, and its Redis."""

    def __init__(self, python: str, world: Path, order: np.ndarray, folder: Path) -> None:
        (port,) = free_ports(1)
        self._redis = RedisServer(folder / "assembled-redis")
        self._redis.start()
        assert self._redis.child is not None
        script = str(REPOSITORY / "benchmarks" / "assembled_stack.py")
        own = folder / "assembled"
        own.mkdir()
        self._child = Child.start(
            "assembled",
            [python, script, str(port), str(world), str(own), f"{HOST}:{self._redis.port}"],
            folder / "assembled.log",
            env={**os.environ, **RUNTIME, "PYTHONPATH": "", "FEAST_USAGE": "False"},
        )
        deadline = time.monotonic() + FILLED_S
        while is_free(port):
            self._child.require_running()
            if time.monotonic() > deadline:
                raise StartFailed(f"the assembled stack does not serve:\n{self._child.tail()}")
            time.sleep(0.2)
        asked = [bare_chain.request(user) for user in order.tolist()]
        self.side = Side(
            http_caller(HOST, port, "/recommend"),
            itertools.cycle(asked).__next__,
            _wrong_bytes,
            {"assembled": self._child.pid, "redis": self._redis.child.pid},
        )

    def said(self) -> str:
        """How it was tuned."""
        return next((line for line in self._child.tail().splitlines() if line.startswith("assembled")), "")

    def close(self) -> None:
        """Ends both."""
        self._child.stop(5.0)
        self._redis.stop()


def _wrong_bytes(data: bytes) -> str:
    items, scores = bare_chain.answer(data)
    good = len(np.unique(items)) == SERVED and (scores > 0).all() and (np.diff(scores) <= 0).all()
    return "" if good else "not the best items in order"
