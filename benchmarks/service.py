"""One service of the loop as a process of its own, on free ports."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from local.child import Child
from local.health import SERVING, status_of
from local.paths import REPOSITORY
from local.ports import HOST, free_ports
from local.processes import RUNTIME

SERVING_S = 120.0


class Service:
    """``settings``: names without RECLOOP_ (KAFKA__LINGER_MS). It serves when the constructor returns; if it
    does not, SystemExit says the end of its log."""

    def __init__(self, module: str, folder: Path, settings: Mapping[str, object], name: str = "") -> None:
        port, self._admin, metrics = free_ports(3)
        own = {"GRPC__PORT": port, "GRPC__ADMIN_PORT": self._admin, "GRPC__METRICS_PORT": metrics, **settings}
        env = {f"RECLOOP_{key}": str(value) for key, value in own.items()}
        self.target = f"{HOST}:{port}"
        self.name = name or module.rpartition(".")[2]
        self.child = Child.start(
            self.name,
            [sys.executable, "-m", module],
            folder / f"{self.name}.log",
            env={**os.environ, **RUNTIME, **env},
            cwd=REPOSITORY,
        )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + SERVING_S
        while status_of(f"{HOST}:{self._admin}") != SERVING:
            self.child.require_running()
            if time.monotonic() > deadline:
                raise SystemExit(f"{self.name} does not serve:\n{self.child.tail()}")
            time.sleep(0.1)

    def close(self) -> None:
        """Ends it."""
        self.child.stop(10.0)
