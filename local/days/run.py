"""The run: a stack under load from its first second to its last, and a turn at each day's end.

Left in ``folder``: ``load/`` (demo.json, evidence), ``run.json`` (``Run``), logs.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from local.child import Child
from local.commands import UNJUDGED
from local.days.plan import BOUND_S, DRIFT, EXPERIMENT, SHARES, WINDOW_S, Plan
from local.days.turn import LOG_LAG_S, Batch, Release, Turn, first_arms, turn
from local.errors import StartFailed
from local.paths import REPOSITORY
from local.stack import Stack
from local.stack_config import StackConfig
from local.up import Interrupted, interruptible, print_stack, report_death, say

# Until the load has found the world and the stack.
LEAD_S = 20
# An answer without scores is none of any arm: rather a slow one, and latency is reported.
DEADLINE_S = 15
# Behind the load's own end: its drain and its report.
LOAD_GRACE_S = 180.0
# 1: a claim of its own did not hold; what it has to reach is not what is judged here.
LOAD_STATUSES = (0, 1)


@dataclass(frozen=True)
class Run:
    """``begin_us``: event time at which the first day begins; ``cpu_s``: by process, while they lasted."""

    begin_us: int
    turns: list[Turn]
    cpu_s: dict[str, float]
    deaths: list[str]

    def write(self, folder: Path) -> None:
        """As run.json."""
        (folder / "run.json").write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Run:
        """From run.json."""
        kept: dict[str, Any] = json.loads((folder / "run.json").read_text())
        return cls(**{**kept, "turns": [Turn(**one) for one in kept["turns"]]})


def run(folder: Path, config: StackConfig, plan: Plan) -> Run:
    """Runs it all; raises LocalError when a part fails, Interrupted when the user stops it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stack = Stack(config, say, report_death)
    load: Child | None = None
    with interruptible() as ignore_interrupts:
        try:
            stack.start()
            print_stack(stack)
            release = Release(stack.addresses.target("release"))
            first_arms(release)
            begin_s = int(time.time()) + LEAD_S
            used = _cpu_s(stack)
            load = _start_load(stack, folder, plan, begin_s)
            turns = _days(stack, folder, plan, load, begin_s=begin_s, release=release)
            _await_end(load, begin_s + plan.duration_s + LOAD_GRACE_S)
            cpu_s = {name: round(now - used[name], 1) for name, now in _cpu_s(stack).items() if name in used}
        except Interrupted as asked:
            say(f"{asked}: stopping")
            raise
        finally:
            ignore_interrupts()
            if load is not None:
                load.stop(5)
            stack.stop()
    done = Run(begin_s * 1_000_000, turns, cpu_s, list(stack.deaths))
    done.write(folder)
    return done


def _start_load(stack: Stack, folder: Path, plan: Plan, begin_s: int) -> Child:
    arguments = [
        "simulate", "--rate", str(plan.rate), "--duration-s", str(plan.duration_s), *UNJUDGED,
        "--drift", str(DRIFT), "--schedule", plan.schedule(), "--begin-at", str(begin_s),
        "--shares", json.dumps(SHARES), "--experiment", EXPERIMENT,
        "--window-ms", str(WINDOW_S * 1000), "--deadline-ms", str(DEADLINE_S * 1000),
        "--max-in-flight", "1024", "--out", str(folder / "load"),
    ]  # fmt: skip
    say(f"load: {plan.rate:g} requests/s, {plan.days} days of {plan.day_s} s; {plan.schedule()}")
    command = [sys.executable, "-m", "loadgen", *arguments]
    return Child.start("load", command, folder / "load.log", env=stack.environment(), cwd=REPOSITORY)


def _days(
    stack: Stack, folder: Path, plan: Plan, load: Child, *, begin_s: int, release: Release
) -> list[Turn]:
    batch = Batch(stack.environment(), folder / "batch.log", plan.day_s)
    parent = release.first_manifest()
    turns: list[Turn] = []
    for day in plan.turns():
        end_s = begin_s + day * plan.day_s
        _sleep_until(end_s + WINDOW_S + BOUND_S + LOG_LAG_S, load.require_running)
        try:
            done = turn(
                day, end_s, parent,
                batch=batch, release=release, bootstrap=stack.addresses.kafka_bootstrap,
                deadline_s=end_s + plan.day_s,
            )  # fmt: skip
        except StartFailed as error:
            # Told as a switch that did not happen; the next day's model has this day's samples too.
            say(f"day {day}: {error}")
            continue
        turns.append(done)
        parent = done.manifest_uri
    return turns


def _sleep_until(unix_s: float, check: Callable[[], None]) -> None:
    while (left_s := unix_s - time.time()) > 0:
        check()
        time.sleep(min(left_s, 1.0))


def _await_end(load: Child, unix_s: float) -> None:
    if not load.wait(unix_s - time.time()) or load.exit_code not in LOAD_STATUSES:
        what = "did not end" if load.exit_code is None else f"ended with status {load.exit_code}"
        raise StartFailed(f"the load {what}; {load.log} ends with:\n{load.tail()}")


def _cpu_s(stack: Stack) -> dict[str, float]:
    """CPU seconds so far by process, of those that run."""
    found = {}
    for name, child in stack.children.items():
        if child.exit_code is None and (process := child.identity.process()) is not None:
            used = process.cpu_times()
            found[name] = used.user + used.system
    return found
