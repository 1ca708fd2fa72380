"""One joiner process as the benchmark measures it: from its start to the end of the log."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import grpc
import psutil

from benchmarks.join_figures import Round, net_cpu_s
from local import compiled
from local.child import Child
from local.health import SERVING, status_of
from local.ports import HOST, free_ports
from local.processes import RUNTIME
from rec.v1 import worker_pb2, worker_pb2_grpc

BARRIER = "bench-end"
IDLE_S = 3.0
TIMEOUT_S = 600.0


class Joiner:
    """One joiner process of its own group."""

    def __init__(self, folder: Path, bootstrap: str, group: str, window_s: int, bound_s: int) -> None:
        self._grpc, self._admin, metrics = free_ports(3)
        settings = {
            "GROUP_ID": group,
            "WINDOW_MS": window_s * 1000,
            "BOUND_MS": bound_s * 1000,
            "GRPC__PORT": self._grpc,
            "GRPC__ADMIN_PORT": self._admin,
            "GRPC__METRICS_PORT": metrics,
            "KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        }
        environment = {f"RECLOOP_{key}": str(value) for key, value in settings.items()}
        self.began = time.monotonic()
        self._child = Child.start(
            group,
            [sys.executable, "-m", "services.joiner"],
            folder / f"{group}.log",
            env={**os.environ, **RUNTIME, **environment},
            cwd=compiled.home(),
        )

    def cpu_s(self) -> float:
        """CPU seconds of the process so far."""
        used = psutil.Process(self._child.pid).cpu_times()
        return float(used.user + used.system)

    def until_serving(self) -> None:
        """Returns when it owns its partitions."""
        while status_of(f"{HOST}:{self._admin}") != SERVING:
            self._child.require_running()
            self._in_time()
            time.sleep(0.05)

    def until_barrier(self) -> None:
        """Returns when the barrier has passed every partition."""
        with grpc.insecure_channel(f"{HOST}:{self._grpc}") as channel:
            stub = worker_pb2_grpc.WorkerServiceStub(channel)
            while True:
                self._child.require_running()
                self._in_time()
                status = stub.GetWorkerStatus(worker_pb2.GetWorkerStatusRequest(), timeout=30)
                whole = all(part.committed == part.end for part in status.partitions)
                if whole and status.partitions and status.last_barrier_id == BARRIER:
                    return
                time.sleep(0.3)

    def _in_time(self) -> None:
        if time.monotonic() - self.began > TIMEOUT_S:
            raise TimeoutError(f"the joiner did not read the log in {TIMEOUT_S:.0f} s:\n{self._child.tail()}")

    def stop(self) -> float:
        """Ends it; its peak memory in MB."""
        peak = self._child.sample_memory() / 1e6
        self._child.stop(10)
        return peak


class Ours:
    """Measures the joiner on a log, each time as a new consumer group."""

    def __init__(self, folder: Path, bootstrap: str, window_s: int, bound_s: int) -> None:
        self._with = (window_s, bound_s)
        self._folder, self._bootstrap = folder, bootstrap
        self.idle_cpu_s = 0.0

    def measure_idle(self) -> float:
        """CPU seconds of a joiner that starts and finds nothing to read: before the log is there."""
        joiner = Joiner(self._folder, self._bootstrap, "idle", *self._with)
        try:
            joiner.until_serving()
            time.sleep(IDLE_S)
            self.idle_cpu_s = joiner.cpu_s()
        finally:
            joiner.stop()
        return self.idle_cpu_s

    def round(self, number: int) -> Round:
        """Reads the whole log."""
        joiner = Joiner(self._folder, self._bootstrap, f"bench-{number}", *self._with)
        try:
            joiner.until_serving()
            joiner.until_barrier()
            wall_s, cpu_s = time.monotonic() - joiner.began, joiner.cpu_s()
        finally:
            peak = joiner.stop()
        return Round(net_cpu_s(cpu_s, self.idle_cpu_s), wall_s, peak)
