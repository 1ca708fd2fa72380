"""``out/run/state.json``: what runs where, for status, down, the load generator and the next start.

A pid alone is not trusted: with its start time it names one process, so that a pid that was given to
somebody else in the meantime is never signalled.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from local.child import Identity
from local.ports import HOST


@dataclass
class ProcessState:
    """One process of a stack. Ports are 0 where it has none; Kafka and Redis have theirs in ``grpc``."""

    pid: int
    started_at: float
    log: str
    grpc: int = 0
    admin: int = 0
    metrics: int = 0
    host: str = HOST

    def identity(self) -> Identity:
        """Names the process safely."""
        return Identity(self.pid, self.started_at)


@dataclass
class StackState:
    """The stack of one folder. ``status``: starting, up, stopping or down."""

    status: str
    launcher: Identity
    kafka_bootstrap: str
    redis_url: str
    model_store_uri: str
    processes: dict[str, ProcessState] = field(default_factory=dict)

    def launcher_runs(self) -> bool:
        """Whether the process that owns the stack is alive."""
        return self.launcher.process() is not None

    def runs(self) -> bool:
        """Whether anything of the stack may still be there."""
        return self.status != "down" and (self.launcher_runs() or bool(self.living()))

    def living(self) -> list[str]:
        """Names of the processes that still run."""
        return [name for name, one in self.processes.items() if one.identity().process() is not None]


def write_state(path: Path, state: StackState) -> None:
    """Replaces the file at once, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(asdict(state), indent=2) + "\n")
    partial.replace(path)


def read_state(path: Path) -> StackState | None:
    """The recorded stack; None when there is no file, or not one that this version wrote."""
    try:
        raw = json.loads(path.read_text())
        return StackState(
            status=raw["status"],
            launcher=Identity(**raw["launcher"]),
            kafka_bootstrap=raw["kafka_bootstrap"],
            redis_url=raw["redis_url"],
            model_store_uri=raw["model_store_uri"],
            processes={name: ProcessState(**one) for name, one in raw["processes"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
