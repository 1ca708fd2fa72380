"""``python -m local freshness --data LOG``: AUC by the interval at which the model is synchronised.

A pass replays the log through the real services with an arm per interval (loadgen.sync_pass), all on the same
events, features and training steps; a pass for each seed, and one more behind 1-minute barriers. Each has a
stack of its own. Writes out/freshness.json, the figures of each pass to out/freshness/; exits with 1 when a
claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from local.commands import refuse_theirs, replay_command, replay_config, with_stack
from local.freshness.verdict import failures, rows
from local.paths import REPOSITORY, RunPaths
from local.ports import HOST, Ports
from local.report import command as report
from local.report.numbers import interval
from local.report.setup import setup, started_with
from local.stack_config import StackConfig
from local.table import table
from local.up import say

BARRIER_S, SHORT_BARRIER_S = 600, 60
INTERVALS_S = (3_600, 18_000, 86_400, 604_800)
NEVER_FROM_S = 3_600
SEEDS, QUICK_EVENTS = 3, 20_000
# The log whose figures are known, complete.
WHOLE = ("ml-100k", 100_000)


@dataclass(frozen=True)
class Pass:
    """One replay: its model's start, its barrier, and the arms beside ``online``."""

    seed: int
    barrier_s: int
    intervals_s: tuple[int, ...]


def planned(seeds: int, *, quick: bool) -> list[Pass]:
    """The passes of a run."""
    made = [Pass(seed, BARRIER_S, INTERVALS_S) for seed in range(1, seeds + 1)]
    return made if quick else [*made, Pass(1, SHORT_BARRIER_S, ())]


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
    return replace(config, process_env=own, seed=seed)


def load_command(config: StackConfig, data: Path, one: Pass, result: Path, limit: int) -> list[str]:
    """Arguments of ``loadgen sync-pass``; the evidence goes where the result does."""
    where, out = config.addresses(), result.parent
    _, *common = replay_command(config, data)
    for process in ("ranking", "trainer"):
        common += [f"--{process}-metrics", f"{HOST}:{where.ports.services[process].metrics}"]
    common += ["--release", where.target("release"), "--barrier-s", str(one.barrier_s)]
    for seconds in one.intervals_s:
        common += ["--arm", f"{policy(seconds)}={seconds}"]
    if NEVER_FROM_S in one.intervals_s:
        common += ["--never", policy(NEVER_FROM_S)]
    return ["sync-pass", *common, "--limit", str(limit), "--result", str(result), "--out", str(out)]


def main(argv: list[str]) -> int:
    """Runs the command."""
    arguments = _arguments(argv)
    folder: Path = arguments.out / "freshness"
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    passes = []
    for one in planned(arguments.seeds, quick=arguments.quick):
        say(f"seed {one.seed}, barriers every {one.barrier_s} s, {time.monotonic() - began:.0f} s so far")
        found = _run(arguments, one, folder)
        if isinstance(found, int):
            return found
        passes.append(found | {"seed": one.seed})
    return _report(passes, arguments, time.monotonic() - began)


def _run(arguments: argparse.Namespace, one: Pass, folder: Path) -> dict[str, Any] | int:
    """The figures of one pass, or the status with which to end."""
    paths = RunPaths(arguments.run_dir.resolve())
    ports = Ports.free() if arguments.free_ports else Ports.shifted(arguments.port_offset)
    config = with_arms(replay_config(paths, ports, arguments.data.resolve()), one)
    result = folder / f"pass-{one.seed}-{one.barrier_s}.json"
    result.unlink(missing_ok=True)
    load = load_command(config, arguments.data.resolve(), one, result, arguments.limit)
    if code := with_stack(config, load):
        return code
    found: dict[str, Any] = json.loads(result.read_text())
    return found | {"settings": started_with(paths.logs)}


def _report(passes: list[dict[str, Any]], arguments: argparse.Namespace, seconds: float) -> int:
    made = rows(passes)
    problems = failures(made, passes, whole=all((one["dataset"], one["events"]) == WHOLE for one in passes))
    seeds = {"models": ", ".join(str(one["seed"]) for one in passes)}
    figures = {
        "dataset": passes[0]["dataset"],
        "rows": made,
        "passes": [{key: one[key] for key in one if key not in ("arms", "settings")} for one in passes],
        "seconds": seconds,
        "command": report.command_line("freshness"),
        # Of the first pass: the others differ in seed and barrier, which passes say.
        "setup": setup(report.command_line("freshness"), seeds, passes[0]["settings"]),
        "failed_checks": problems,
    }
    (arguments.out / "freshness.json").write_text(json.dumps(figures, indent=2) + "\n")
    say(f"report: {report.freshness(arguments.out)}")
    print(_table(made))
    for problem in problems:
        print(f"freshness: FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _table(made: list[dict[str, Any]]) -> str:
    header = ("interval", "AUC (last 80 %)", "std", "seeds", "AUC (all)", "log loss", "delta MB", "CPU s")
    return table(header, [_cells(row) for row in made])


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    def number(value: float | None, digits: int) -> object:
        return "" if value is None else round(value, digits)

    area = row["auc"]
    return (
        interval(row["interval_s"]), number(area["mean"], 4), number(area["std"], 4), area["seeds"],
        number(row["auc_all"], 4),
        number(row["log_loss"], 4), number(row["delta_bytes"] / 1e6, 1), number(row["cpu_s"], 1),
    )  # fmt: skip


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local freshness", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="MovieLens 100K folder, .csv or .parquet")
    parser.add_argument("--seeds", type=int, help=f"passes; {SEEDS}, quick 1")
    parser.add_argument("--limit", type=int, default=0, help="only the first N events; 0 = all")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_EVENTS:,} events, one seed: that it works"
    )
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out", help="folder of freshness.json")
    parser.add_argument("--run-dir", type=Path, default=REPOSITORY / "out" / "run", help="state and logs")
    parser.add_argument("--port-offset", type=int, default=0, help="moves every port, for a second stack")
    parser.add_argument("--free-ports", action="store_true", help="any free ports instead")
    arguments = parser.parse_args(argv)
    if not arguments.data.exists():
        parser.error(f"--data {arguments.data}: no such file or folder")
    refuse_theirs(("KAFKA_BOOTSTRAP_SERVERS",), "each pass begins with a Kafka of its own")
    if arguments.quick:
        arguments.limit = arguments.limit or QUICK_EVENTS
    arguments.seeds = arguments.seeds or (1 if arguments.quick else SEEDS)
    if arguments.seeds < 1:
        parser.error(f"--seeds {arguments.seeds}: at least 1")
    return arguments
