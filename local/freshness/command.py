"""``python -m local freshness --data LOG``: AUC by the interval at which the model is synchronised.

A pass replays the log through the real services with an arm per interval (loadgen.sync_pass), all on the same
events, features and training steps; a pass for each seed, and one more behind 1-minute barriers. Each has a
stack of its own. Then the simulated world, with and without drift (world.py). Writes out/freshness.json and
.html, the figures of each pass to out/freshness/; exits with 1 when a claim does not hold. Without ``--data``
the world alone: what an earlier run found on a log stays.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from local.commands import refuse_theirs
from local.freshness.passes import Pass, Where, run_pass
from local.freshness.verdict import failures, rows
from local.freshness.world import FULL, QUICK, WORLDS, Size, run_world, world_failures
from local.paths import REPOSITORY
from local.ports import Ports
from local.report import command as report
from local.report.numbers import interval
from local.report.setup import setup
from local.table import table
from local.up import say

BARRIER_S, SHORT_BARRIER_S = 600, 60
INTERVALS_S = (3_600, 18_000, 86_400, 604_800)
SEEDS, QUICK_EVENTS = 3, 20_000
# What all may take: the world has as many seeds as there is time for.
IN_ALL_S = 3_600
# The log whose figures are known, complete.
WHOLE = ("ml-100k", 100_000)
RESULT = "freshness.json"
# As long as nothing was replayed.
NONE: dict[str, Any] = {"dataset": None, "rows": [], "passes": [], "failed_checks": []}


def planned(seeds: int, *, quick: bool) -> list[Pass]:
    """The passes over a log."""
    made = [Pass(seed, BARRIER_S, INTERVALS_S) for seed in range(1, seeds + 1)]
    return made if quick else [*made, Pass(1, SHORT_BARRIER_S, ())]


def main(argv: list[str]) -> int:
    """Runs the command."""
    began, arguments = time.monotonic(), _arguments(argv)
    out: Path = arguments.out
    ports = Ports.free if arguments.free_ports else lambda: Ports.shifted(arguments.port_offset)
    where = Where(out / "freshness", arguments.run_dir.resolve(), ports)
    out.mkdir(parents=True, exist_ok=True)
    figures = NONE | (json.loads((out / RESULT).read_text()) if (out / RESULT).is_file() else {})
    if arguments.data is not None:
        found = _log(arguments, where)
        if isinstance(found, int):
            return found
        figures = found
    if arguments.world:
        left_s = IN_ALL_S - (time.monotonic() - began)
        world = _world(where, QUICK if arguments.quick else FULL, left_s)
        if isinstance(world, int):
            return world
        figures |= {"world": world}
    return _report(figures, arguments)


def _log(arguments: argparse.Namespace, where: Where) -> dict[str, Any] | int:
    began, passes = time.monotonic(), []
    for one in planned(arguments.seeds, quick=arguments.quick):
        say(f"seed {one.seed}, barriers every {one.barrier_s} s, {time.monotonic() - began:.0f} s so far")
        found = run_pass(arguments.data.resolve(), one, where, arguments.limit)
        if isinstance(found, int):
            return found
        passes.append(found)
    made = rows(passes)
    whole = all((one["dataset"], one["events"]) == WHOLE for one in passes)
    return {
        "dataset": passes[0]["dataset"],
        "rows": made,
        "passes": [one["figures"] for one in passes],
        "seconds": time.monotonic() - began,
        "command": report.command_line("freshness"),
        "setup": _setup(passes),
        "failed_checks": failures(made, passes, whole=whole),
    }


def _world(where: Where, size: Size, left_s: float) -> dict[str, Any] | int:
    began = time.monotonic()
    found = run_world(where, size, left_s)
    if isinstance(found, int):
        return found
    figures, passes = found
    return figures | {
        "seconds": time.monotonic() - began,
        "setup": _setup(passes),
        "failed_checks": world_failures(figures),
    }


def _setup(passes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Settings of the first pass: the others differ in seed and barrier, which passes say."""
    seeds = {"models": ", ".join(str(one["seed"]) for one in passes)}
    return setup(report.command_line("freshness"), seeds, passes[0]["settings"])


def _report(figures: dict[str, Any], arguments: argparse.Namespace) -> int:
    (arguments.out / RESULT).write_text(json.dumps(figures, indent=2) + "\n")
    say(f"report: {report.freshness(arguments.out)}")
    world = figures.get("world", {})
    if figures["rows"]:
        print(_table(figures["rows"]))
    for name in WORLDS if world else ():
        print(f"world, {name}\n{_table(world[name]['rows'])}\n{_windows(world[name])}")
    problems = [*figures["failed_checks"], *world.get("failed_checks", ())]
    for problem in problems:
        print(f"freshness: FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _windows(found: dict[str, Any]) -> str:
    header = ("trained on the last", "AUC", "std", "seeds", "log loss", "rows")
    made = [
        (
            "all" if one["window_s"] is None else interval(one["window_s"]),
            _number(one["auc"]["mean"], 4),
            _number(one["auc"]["std"], 4),
            one["auc"]["seeds"],
            _number(one["log_loss"], 4),
            round(one["trained_rows"]),
        )
        for one in found["windows"]
    ]
    return table(header, made)


def _table(made: list[dict[str, Any]]) -> str:
    header = ("interval", "AUC (last 80 %)", "std", "seeds", "AUC (all)", "log loss", "delta MB", "CPU s")
    return table(header, [_cells(row) for row in made])


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    area = row["auc"]
    return (
        interval(row["interval_s"]), _number(area["mean"], 4), _number(area["std"], 4), area["seeds"],
        _number(row["auc_all"], 4), _number(row["log_loss"], 4),
        _number(row["delta_bytes"] / 1e6, 1), _number(row["cpu_s"], 1),
    )  # fmt: skip


def _number(value: float | None, digits: int) -> object:
    return "" if value is None else round(value, digits)


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local freshness", description=__doc__)
    parser.add_argument("--data", type=Path, help="MovieLens 100K folder, .csv or .parquet; none: the world")
    parser.add_argument("--seeds", type=int, help=f"passes; {SEEDS}, quick 1")
    parser.add_argument("--limit", type=int, default=0, help="only the first N events; 0 = all")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"that it works: {QUICK_EVENTS:,} events, one seed; without --data a small world",
    )
    parser.add_argument(
        "--no-world", dest="world", action="store_false", help="the log alone, not the simulated world"
    )
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out", help="folder of freshness.json")
    parser.add_argument("--run-dir", type=Path, default=REPOSITORY / "out" / "run", help="state and logs")
    parser.add_argument("--port-offset", type=int, default=0, help="moves every port, for a second stack")
    parser.add_argument("--free-ports", action="store_true", help="any free ports instead")
    arguments = parser.parse_args(argv)
    if arguments.data is None and not arguments.world:
        parser.error("--no-world: without --data there is nothing else to do")
    if arguments.data is not None and not arguments.data.exists():
        parser.error(f"--data {arguments.data}: no such file or folder")
    refuse_theirs(("KAFKA_BOOTSTRAP_SERVERS",), "each pass begins with a Kafka of its own")
    # Quick is to be quick: one of both.
    arguments.world = arguments.world and not (arguments.quick and arguments.data)
    if arguments.quick:
        arguments.limit = arguments.limit or QUICK_EVENTS
    arguments.seeds = arguments.seeds or (1 if arguments.quick else SEEDS)
    if arguments.seeds < 1:
        parser.error(f"--seeds {arguments.seeds}: at least 1")
    return arguments
