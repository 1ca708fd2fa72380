"""The join on Flink as a host under chaos: two task managers, each big enough for the whole job.

A transaction is open from one checkpoint to the next, so nearly every kill is inside one. The job manager is
not struck: it stands for the part of a cluster that Kubernetes keeps alive (its death is a start from the
newest checkpoint, which tests/flink has).
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path

from local.chaos_host import BOUND_MS, FLINK, WINDOW_MS
from local.flink_cluster import FlinkCluster
from local.flink_config import OUTPUTS, FlinkShape

HEARTBEAT_TIMEOUT_MS = 5_000
CHECKPOINT_MS = 1_000


class FlinkHost:
    """A cluster of one job manager and two task managers."""

    name = FLINK
    outputs = OUTPUTS
    pause_s = HEARTBEAT_TIMEOUT_MS / 1000 + 4

    def __init__(self, folder: Path) -> None:
        self._names = ("taskmanager-a", "taskmanager-b")
        self._cluster = FlinkCluster(folder, FlinkShape(heartbeat_timeout_ms=HEARTBEAT_TIMEOUT_MS))
        self._checkpoints = 0

    def start(self, bootstrap: str) -> None:
        """As Host says."""
        self._cluster.start(self._names)
        self._cluster.submit(
            *("--bootstrap", bootstrap, "--parallelism", "2", "--group", "flink-chaos"),
            *("--window-ms", str(WINDOW_MS), "--bound-ms", str(BOUND_MS)),
            *("--checkpoint-interval-ms", str(CHECKPOINT_MS)),
        )

    def pick(self, draw: random.Random) -> str:
        """As Host says; after a failure all work may stand on one of them."""
        return draw.choice(self._cluster.working() or self._names)

    def aim(self) -> Callable[[int], str]:
        """Any that works: the death of one restarts every task."""
        working = self._cluster.working() or self._names
        return lambda partition: working[partition % len(working)]

    def send(self, name: str, number: int) -> None:
        """As Host says."""
        self._cluster.children[name].send(number)

    def replace(self, name: str) -> None:
        """As Host says."""
        self._cluster.children[name].kill()
        self._cluster.start_task_manager(name)

    def mark(self) -> None:
        """As Host says."""
        self._checkpoints = self._cluster.job().checkpoints

    def works(self) -> bool:
        """Every task runs, both task managers are known, and a checkpoint has come since the last strike."""
        self._cluster.require_running()
        job = self._cluster.job()
        known = len(self._cluster.task_managers()) == len(self._names)
        return known and job.runs and job.checkpoints > self._checkpoints

    def close(self) -> None:
        """As Host says."""
        for child in self._cluster.children.values():
            child.send(signal.SIGCONT)
        self._cluster.close()
