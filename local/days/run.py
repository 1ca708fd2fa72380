"""The run: a stack under load from its first second to its last, and a turn at each day's end.

Left in ``folder``: ``load/`` (demo.json, evidence), ``run.json`` (``Run``), logs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from local.child import Child
from local.days.plan import BOUND_S, DRIFT, EXPERIMENT, SHARES, WINDOW_S, Plan
from local.days.turn import LOG_LAG_S, Batch, Release, Turn, first_arms, turn
from local.demo import LOAD_GRACE_S, Stage, await_load, staged
from local.errors import StartFailed
from local.stack import Stack
from local.stack_config import StackConfig
from local.up import say

# Until the load has found the world and the stack.
LEAD_S = 20
# An answer without scores is none of any arm: rather a slow one, and latency is reported.
DEADLINE_S = 15


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
    with staged(folder, config) as stage:
        stack = stage.stack
        release = Release(stack.addresses.target("release"))
        first_arms(release)
        begin_s = int(time.time()) + LEAD_S
        used = _cpu_s(stack)
        load = _start_load(stage, plan, begin_s)
        turns = _days(stage, plan, load, begin_s=begin_s, release=release)
        await_load(load, begin_s + plan.duration_s + LOAD_GRACE_S - time.time())
        cpu_s = {name: round(now - used[name], 1) for name, now in _cpu_s(stack).items() if name in used}
    done = Run(begin_s * 1_000_000, turns, cpu_s, list(stack.deaths))
    done.write(folder)
    return done


def _start_load(stage: Stage, plan: Plan, begin_s: int) -> Child:
    say(f"load: {plan.rate:g} requests/s, {plan.days} days of {plan.day_s} s; {plan.schedule()}")
    return stage.start_load(
        plan.rate, plan.duration_s,
        "--drift", str(DRIFT), "--schedule", plan.schedule(), "--begin-at", str(begin_s),
        "--shares", json.dumps(SHARES), "--experiment", EXPERIMENT,
        "--window-ms", str(WINDOW_S * 1000), "--deadline-ms", str(DEADLINE_S * 1000),
        "--max-in-flight", "1024",
    )  # fmt: skip


def _days(stage: Stage, plan: Plan, load: Child, *, begin_s: int, release: Release) -> list[Turn]:
    stack = stage.stack
    batch = Batch(stack.environment(), stage.folder / "batch.log", plan.day_s)
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


def _cpu_s(stack: Stack) -> dict[str, float]:
    """CPU seconds so far by process, of those that run."""
    found = {}
    for name, child in stack.children.items():
        if child.exit_code is None and (process := child.identity.process()) is not None:
            used = process.cpu_times()
            found[name] = used.user + used.system
    return found
