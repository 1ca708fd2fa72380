"""Where the launcher keeps things: caches outside the repository, a run's state inside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def cache_dir() -> Path:
    """The user's cache for downloaded and derived files (XDG_CACHE_HOME, else ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "recloop"


@dataclass(frozen=True)
class RunPaths:
    """Files of one stack below ``root``."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def memory(self) -> Path:
        return self.root / "memory.json"

    @property
    def control(self) -> Path:
        """Where the launcher takes commands (local.control)."""
        return self.root / "control.sock"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def kafka(self) -> Path:
        return self.root / "kafka"

    @property
    def redis(self) -> Path:
        return self.root / "redis"

    @property
    def model_keys(self) -> Path:
        """The key pair of the stack's manifests (contract.signature)."""
        return self.root / "model-keys"

    @property
    def security(self) -> Path:
        """Certificates and passwords of a secured stack (local.security)."""
        return self.root / "security"

    @property
    def flink(self) -> RunPaths:
        """The join on Flink has a state, logs and checkpoints of its own."""
        return RunPaths(self.root / "flink")

    def log(self, name: str) -> Path:
        """The log file of one process."""
        return self.logs / f"{name}.log"
