"""One pass: a log through a stack of its own, with an arm per interval (loadgen.sync_pass)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from local.commands import replay_command, replay_config, with_stack
from local.paths import RunPaths
from local.ports import HOST, Ports
from local.report.setup import started_with
from local.stack import Stack
from local.stack_config import StackConfig


@dataclass(frozen=True)
class Pass:
    """One replay: its model's start, its barrier, the arms beside ``online``, and what its stack is told.
    ``never`` is frozen from the arm with the shortest interval."""

    seed: int
    barrier_s: int
    intervals_s: tuple[int, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Where:
    """Where passes run and what they leave: ``folder`` gets the figures of each and the evidence."""

    folder: Path
    run_dir: Path
    ports: Callable[[], Ports]


def policy(interval_s: int) -> str:
    """Of the lineage, and of the arm that follows it."""
    return f"every-{interval_s}"


def with_arms(config: StackConfig, one: Pass) -> StackConfig:
    """The stack whose trainer knows the arms, and how often each publishes."""
    names = [policy(seconds) for seconds in one.intervals_s]
    paces = [{"policy": policy(seconds), "interval_s": seconds} for seconds in one.intervals_s]
    own = {name: dict(env) for name, env in config.process_env.items()}
    own.setdefault("trainer", {}).update(
        RECLOOP_EXTRA_ARMS=json.dumps(names), RECLOOP_PACES=json.dumps(paces)
    )
    seed = [*(config.seed or ()), "--model-seed", str(one.seed)]
    return replace(config, env={**config.env, **one.env}, process_env=own, seed=seed)


def load_command(config: StackConfig, data: Path, one: Pass, result: Path, limit: int) -> list[str]:
    """Arguments of ``loadgen sync-pass``; the evidence goes where the result does."""
    where, out = config.addresses(), result.parent
    _, *common = replay_command(config, data)
    for process in ("ranking", "trainer"):
        common += [f"--{process}-metrics", f"{HOST}:{where.ports.services[process].metrics}"]
    common += ["--release", where.target("release"), "--barrier-s", str(one.barrier_s)]
    for seconds in one.intervals_s:
        common += ["--arm", f"{policy(seconds)}={seconds}"]
    if one.intervals_s:
        common += ["--never", policy(min(one.intervals_s))]
    return ["sync-pass", *common, "--limit", str(limit), "--result", str(result), "--out", str(out)]


def run_pass(
    data: Path, one: Pass, where: Where, limit: int, behind: Callable[[Stack], None] = lambda _stack: None
) -> dict[str, Any] | int:
    """Of one pass, or the status with which to end: its ``figures``, which stand here by name too, its
    ``arms``, and the ``settings`` of its processes. ``behind`` as of with_stack."""
    paths = RunPaths(where.run_dir)
    config = with_arms(replay_config(paths, where.ports(), data), one)
    where.folder.mkdir(parents=True, exist_ok=True)
    result = where.folder / f"pass-{one.seed}-{one.barrier_s}.json"
    result.unlink(missing_ok=True)
    if code := with_stack(config, load_command(config, data, one, result, limit), behind):
        return code
    found: dict[str, Any] = json.loads(result.read_text())
    figures = {key: value for key, value in found.items() if key != "arms"} | {"seed": one.seed}
    return {**figures, "arms": found["arms"], "settings": started_with(paths.logs), "figures": figures}
