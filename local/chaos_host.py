"""What a chaos run strikes: a host of the join, and how the joiner service is one."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import grpc

from local import compiled
from local.child import Child
from local.health import SERVING, status_of
from local.ports import HOST, free_ports
from local.processes import RUNTIME
from rec.v1 import worker_pb2, worker_pb2_grpc
from services.contract import topics

# Event time: short windows, so that a run of minutes has many whole ones.
WINDOW_MS, BOUND_MS = 5_000, 1_000
JOINER, FLINK = "joiner", "flink"


class Host(Protocol):
    """One host of the join under chaos: some processes, each of which may be struck.

    ``outputs``: its samples, late events and dead letters. ``pause_s`` is longer than a process may be silent
    before its work is given to another one.
    """

    name: str
    outputs: tuple[topics.Topic, ...]
    pause_s: float

    def start(self, bootstrap: str) -> None:
        """Every process, on this Kafka."""

    def pick(self, draw: random.Random) -> str:
        """A process that has work to do."""

    def aim(self) -> Callable[[int], str]:
        """Who has which partition now: partition -> process."""

    def send(self, name: str, number: int) -> None:
        """Signals a process."""

    def replace(self, name: str) -> None:
        """A new process in place of one that was killed."""

    def mark(self) -> None:
        """What ``works`` asks for must be done after this moment."""

    def works(self) -> bool:
        """Whether all of it works again. Raises StartFailed when a process has ended by itself."""

    def close(self) -> None:
        """Ends every process."""


class JoinerHost:
    """Two replicas of services.joiner, which share the partitions out by their consumer group."""

    name = JOINER
    outputs: tuple[topics.Topic, ...] = (topics.SAMPLES, topics.LATE_EVENTS, topics.DEAD_LETTERS)
    session_ms = 3_000
    pause_s = session_ms / 1000 + 4

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = ("joiner-a", "joiner-b")
        ports = free_ports(3 * len(self._names))
        self._ports = {name: ports[3 * i : 3 * i + 3] for i, name in enumerate(self._names)}
        self._children: dict[str, Child] = {}
        self._bootstrap = ""

    def start(self, bootstrap: str) -> None:
        """As Host says."""
        self._bootstrap = bootstrap
        for name in self._names:
            self._start(name)

    def _start(self, name: str) -> None:
        grpc_port, admin, metrics = self._ports[name]
        settings = {
            "NAME": name,
            "GROUP_ID": "joiner-chaos",
            "WINDOW_MS": WINDOW_MS,
            "BOUND_MS": BOUND_MS,
            "GRPC__PORT": grpc_port,
            "GRPC__ADMIN_PORT": admin,
            "GRPC__METRICS_PORT": metrics,
            "KAFKA__BOOTSTRAP_SERVERS": self._bootstrap,
            "KAFKA__SESSION_TIMEOUT_MS": self.session_ms,
        }
        environment = {f"RECLOOP_{key}": str(value) for key, value in settings.items()}
        self._children[name] = Child.start(
            name,
            [sys.executable, "-m", "services.joiner"],
            self._folder / f"{name}.log",
            env={**os.environ, **RUNTIME, **environment},
            cwd=compiled.home(),
        )

    def pick(self, draw: random.Random) -> str:
        """As Host says."""
        return draw.choice(self._names)

    def aim(self) -> Callable[[int], str]:
        """By the replicas' own word."""
        owners: dict[int, str] = {}
        for name in self._names:
            with grpc.insecure_channel(f"{HOST}:{self._ports[name][0]}") as channel:
                stub = worker_pb2_grpc.WorkerServiceStub(channel)
                status = stub.GetWorkerStatus(worker_pb2.GetWorkerStatusRequest(), timeout=5)
            owners |= {where.partition: name for where in status.partitions}
        return lambda partition: owners.get(partition, self._names[0])

    def send(self, name: str, number: int) -> None:
        """As Host says."""
        self._children[name].send(number)

    def replace(self, name: str) -> None:
        """As Host says."""
        self._children[name].kill()
        self._start(name)

    def mark(self) -> None:
        """A replica says by itself when it has caught up."""

    def works(self) -> bool:
        """Both replicas serve: every partition that they have is caught up with its state."""
        for child in self._children.values():
            child.require_running()
        return all(status_of(f"{HOST}:{self._ports[name][1]}") == SERVING for name in self._names)

    def close(self) -> None:
        """As Host says."""
        for child in self._children.values():
            child.send(signal.SIGCONT)
            child.stop(10)
