"""The run: a stack under load, and a view that joins it. Each step is a command that a person would type.

    stack with a lake, day 0 in it -> load begins -> (a while)
    -> add-view -> backfill-view -> the folds have caught up: live -> recompute-samples: trainable
    -> audit-features of what was served meanwhile -> the load ends
    -> a barrier; features and lake have all before it -> audit-states -> recompute-samples of everything

Left in ``folder``: ``view.json``, ``samples.parquet`` (all samples, with the view's columns),
``states.json``, ``served.json``, ``load/``, ``run.json`` (``Run``).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from local.backfill.view import USER_LATELY
from local.chaos_kafka import read
from local.child import Child, guard
from local.compare import workers
from local.demo import LOAD_GRACE_S, Stage, await_load, require_load, staged
from local.errors import StartFailed
from local.paths import REPOSITORY
from local.processes import ASIDE
from local.stack import Stack
from local.stack_config import StackConfig
from local.up import say
from services.contract import topics
from services.contract.view_codec import canonical

BARRIER = "backfill-demo"
LIVE_S = 120.0
POLL_S = 0.2
# What the load is needed for.
ROWS = "the rows were there: a longer --duration-s is needed"


@dataclass(frozen=True)
class Plan:
    """``lead_s`` of load before the view joins, ``duration_s`` in all; ``audit_rows`` of states; what share
    of the served requests is audited."""

    rate: float
    lead_s: float
    duration_s: float
    audit_rows: int
    served_share: float


@dataclass(frozen=True)
class Run:
    """``steps_s``: seconds of each step on the way to training rows. Event times: ``began_us`` of the load;
    ``live_us``: the view is folded with the others; ``trainable_us``: the rows are there."""

    steps_s: dict[str, float]
    began_us: int
    live_us: int
    trainable_us: int
    states: int
    trainable_rows: int
    load_status: int
    deaths: list[str]

    def write(self, folder: Path) -> None:
        """As run.json."""
        (folder / "run.json").write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Run:
        """From run.json."""
        return cls(**json.loads((folder / "run.json").read_text()))


def run(folder: Path, config: StackConfig, plan: Plan) -> Run:
    """Runs it all; raises LocalError when a part fails, Interrupted when the user stops it."""
    with staged(folder, config) as stage:
        (folder / "view.json").write_text(canonical(USER_LATELY) + "\n")
        say(f"load: {plan.rate:g} requests/s, {plan.duration_s:.0f} s; the view joins at {plan.lead_s:.0f} s")
        done = _under_load(stage, plan, stage.start_load(plan.rate, plan.duration_s))
    finished = Run(**done, deaths=list(stage.stack.deaths))
    finished.write(folder)
    return finished


def _under_load(stage: Stage, plan: Plan, load: Child) -> dict[str, Any]:
    stack, folder = stage.stack, stage.folder
    command = _Commands(stack, folder)
    began, began_us = time.monotonic(), time.time_ns() // 1000
    # While the lead runs: the past belongs to the lake, not to the new view.
    command.run("loadgen", "day0-samples")
    time.sleep(max(0.0, plan.lead_s - (time.monotonic() - began)))
    require_load(load, ROWS)
    steps: dict[str, float] = {}
    definition = ["--definition", str(folder / "view.json")]

    steps["add_view"], _ = command.run("services.feature_pipeline", "add-view", str(folder / "view.json"))
    steps["backfill"], lines = command.run("services.lake", "backfill-view", *definition)
    filled = [json.loads(line) for line in lines.splitlines()]
    steps["live"] = _until_live(stack)
    live_us = time.time_ns() // 1000
    samples = ["--out", str(folder / "samples.parquet")]
    steps["recompute"], lines = command.run("services.lake", "recompute-samples", *definition, *samples)
    trainable_us = time.time_ns() // 1000
    made = json.loads(lines)
    say(f"trainable after {sum(steps.values()):.1f} s: {made['rows']:,} rows with {made['columns']}")

    # What was served while the view joined; judged while requests still come.
    require_load(load, ROWS)
    served = ["--audit_share", str(plan.served_share), "--out", str(folder / "served.json")]
    command.run("services.lake", "audit-features", *served, accept=(0, 1))

    status = await_load(load, plan.duration_s + LOAD_GRACE_S)
    _quiesce(stack)
    states = ["--rows", str(plan.audit_rows), "--out", str(folder / "states.json")]
    states += ["--feature_target", stack.addresses.target("feature")]
    command.run("services.lake", "audit-states", *definition, *states, accept=(0, 1))
    command.run("services.lake", "recompute-samples", *definition, *samples)
    return {
        "steps_s": {name: round(seconds, 2) for name, seconds in steps.items()},
        "began_us": began_us,
        "live_us": live_us,
        "trainable_us": trainable_us,
        "states": sum(line["states"] for line in filled),
        "trainable_rows": made["rows"],
        "load_status": status,
    }


def _until_live(stack: Stack) -> float:
    """Waits until every partition's fold has taken the view among the others; how long."""
    began = time.monotonic()
    while True:
        joined = workers.numbers("feature_pipeline", stack.addresses.target("feature_pipeline"))[
            "views_joined"
        ]
        waited_s = time.monotonic() - began
        if joined >= topics.FEATURE_EVENTS.partitions:
            return waited_s
        if waited_s > LIVE_S:
            raise StartFailed(
                f"the view is live on {joined:.0f} of {topics.FEATURE_EVENTS.partitions} partitions after "
                f"{LIVE_S:.0f} s; see {stack.paths.log('feature_pipeline')}"
            )
        time.sleep(POLL_S)


def _quiesce(stack: Stack) -> None:
    """A barrier behind the traffic; returns when features and lake have all before it."""
    say("a barrier behind the traffic; features and lake read up to it")
    where = stack.addresses
    events = read(where.kafka_bootstrap, [topics.IMPRESSIONS, topics.ACTIONS], committed=True)
    workers.emit_barrier(where, BARRIER, workers.newest_us(events) + 1)
    workers.wait_features(where.target("feature"), BARRIER)
    workers.wait_committed("joiner", where.target("joiner"))
    workers.wait_committed("lake", where.target("lake"))


class _Commands:
    """Commands against the stack, each a process that dies with this one."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._environment = {**stack.environment(), **stack.config.process_env.get("lake", {})}
        self._log = folder / "commands.log"

    def run(self, module: str, *arguments: str, accept: Sequence[int] = (0,)) -> tuple[float, str]:
        """(seconds, stdout). Raises StartFailed on another status than accepted."""
        say(f"  {module} {' '.join(arguments[:1])}")
        began = time.monotonic()
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*guard(ASIDE), sys.executable, "-m", module, *arguments], env=self._environment,
                cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
            try:
                said, _ = process.communicate()
            except BaseException:
                process.kill()
                process.wait()
                raise
            log.write(said.encode())
        if process.returncode not in accept:
            raise StartFailed(
                f"{module} {arguments[0]} ended with status {process.returncode}; see {self._log}"
            )
        return time.monotonic() - began, said
