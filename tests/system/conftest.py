"""A whole stack of processes with a small simulated world, and the load that drives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from local.ports import Ports
from local.processes import LOOP
from local.stack import Stack
from local.stack_config import StackConfig

REPOSITORY = Path(__file__).parents[2]
# A world that day 0 makes in seconds; every part of the loop still has work.
WORLD = [
    "--sim.items", "3000",
    "--sim.users", "300",
    "--sim.sessions", "2",
    "--sim.session-s", "30",
]  # fmt: skip


def loadgen(command: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "loadgen", command, *arguments]


class Loop:
    """A running stack and what a test does with it."""

    def __init__(self, stack: Stack, out: Path, world: Sequence[str] = WORLD) -> None:
        self.stack = stack
        self.out = out
        self.world = world

    def start(self, command: list[str], *, stderr: int = subprocess.STDOUT) -> subprocess.Popen[str]:
        """A command beside the stack, in its environment."""
        return subprocess.Popen(
            command,
            env=self.stack.environment(),
            cwd=REPOSITORY,
            text=True,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )

    def simulate(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a load in the background."""
        where = ["--out", str(self.out), "--run-dir", str(self.stack.paths.root)]
        return self.start(loadgen("simulate", *self.world, *where, *arguments))

    def audit(self) -> subprocess.CompletedProcess[str]:
        """Recomputes the figures, with the topics read again."""
        command = [sys.executable, "-m", "local", "audit", "--out", str(self.out)]
        return subprocess.run(
            command, env=self.stack.environment(), cwd=REPOSITORY, text=True, capture_output=True, check=False
        )

    def trace(self, *arguments: str) -> dict:
        """What became of one click, as loadgen trace tells it."""
        done = subprocess.run(
            loadgen("trace", "--json-out", "--patience-s", "20", *arguments),
            env=self.stack.environment(), cwd=REPOSITORY, text=True, capture_output=True, check=False,
            timeout=120,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        return json.loads(done.stdout)

    @staticmethod
    def wait_until(condition, timeout_s: float, what: str):
        """The first true value of a condition; fails by name when the time runs out."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if value := condition():
                return value
            time.sleep(0.1)
        pytest.fail(f"not within {timeout_s} s: {what}")


@contextmanager
def seeded_loop(
    folder: Path,
    services: tuple[str, ...] = LOOP,
    env: Mapping[str, str] | None = None,
    world: Sequence[str] = WORLD,
) -> Iterator[Loop]:
    """A seeded stack on free ports; stopped, whatever the test did. ``env``: for all its processes, and for
    commands against it."""
    subprocess.run(loadgen("day0", *world), cwd=REPOSITORY, env=os.environ, check=True, timeout=240)
    run_dir = folder / "run"
    seed = ["--world", "simulate", *world, "--run-dir", str(run_dir)]
    config = StackConfig(
        root=run_dir,
        ports=Ports.free(),
        seed=seed,
        services=services,
        env=dict(env or {}),
        process_env={"trainer": {"RECLOOP_BASE_INTERVAL_S": "8"}},
    )
    with Stack(config) as stack:
        yield Loop(stack, folder / "out", world)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    """A seeded stack."""
    with seeded_loop(tmp_path) as seeded:
        yield seeded
