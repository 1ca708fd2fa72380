"""``python -m local compare-samples``: all four ways to build samples on the same traffic of the real loop.

The usual stack runs with a joiner for each scheme beside its own, and the lake; simulated users (or
``--data``, a real log in event time) use it; then the batch join runs, and everything is compared:
completeness, leaks against the features that were scored, state, bytes, CPU, delay, and the AUC of a model
trained on each. Writes out/samples.json and out/samples.html, its evidence to out/samples/; exits with 1 when
a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from local.commands import (
    EXIT_INTERRUPTED,
    UNJUDGED,
    prepare,
    refuse_secure,
    refuse_theirs,
    replay_command,
    replay_config,
    stack_config,
)
from local.compare import run
from local.compare.evaluate import evaluate
from local.compare.page import page
from local.compare.verdict import MIN_SAMPLES, failures
from local.errors import LocalError
from local.paths import REPOSITORY, RunPaths
from local.ports import Ports
from local.report.command import command_line
from local.report.setup import machine
from local.stack_config import StackConfig
from local.table import table
from local.up import Interrupted, require_down, say
from services.contract.errors import LoopError

SHOWN = 10
ITEMS, RATE = 55_000, 30.0
QUICK_ITEMS, QUICK_RATE = 6_000, 15.0
# What the lake does not cover yet when the traffic ends is waited for.
FLUSH_AGE_MS = 5_000


def main(argv: list[str]) -> int:
    """Runs the command."""
    arguments = _arguments(argv)
    folder = arguments.out / "samples"
    try:
        if not arguments.again:
            _run(arguments, folder)
        elif not (folder / "run.json").is_file():
            raise LocalError(f"--again: {folder} holds no finished run")
    except Interrupted:
        return EXIT_INTERRUPTED
    say("comparing, and training a model on each")
    try:
        figures = evaluate(folder, arguments.seeds)
    except LoopError as error:
        # Of a lake that is another run's by now, or damaged.
        raise LocalError(f"{folder} and its lake do not fit together: {error}") from error
    return _report(figures, arguments)


def _run(arguments: argparse.Namespace, folder: Path) -> None:
    theirs = ("KAFKA_BOOTSTRAP_SERVERS", "RECLOOP_LAKE_URI")
    refuse_theirs(theirs, "this command reads whole topics and a whole lake, and begins with its own")
    paths = RunPaths(arguments.run_dir.resolve())
    require_down(paths)
    ports = Ports.free() if arguments.free_ports else Ports.shifted(arguments.port_offset)
    if arguments.data is None:
        prepare("simulate")
        config = stack_config(paths, ports, "simulate", None, os.environ, extra=run.EXTRA)
        refuse_secure(config)
        run.run(folder, _with_schemes(config), "simulate", _simulate(arguments))
        return
    config = replay_config(paths, ports, arguments.data.resolve(), extra=run.EXTRA)
    load = replay_command(config, arguments.data.resolve())
    load += ["--limit", str(arguments.items)] if arguments.items else []
    run.run(folder, _with_schemes(config), arguments.data.name, load)


def _simulate(arguments: argparse.Namespace) -> list[str]:
    """Arguments of the load: what it has to reach is not what is measured here."""
    duration_s = math.ceil(1.05 * arguments.items / (arguments.rate * SHOWN))
    return [
        "simulate", "--rate", str(arguments.rate), "--duration-s", str(duration_s), *UNJUDGED,
    ]  # fmt: skip


def _with_schemes(config: StackConfig) -> StackConfig:
    own = {name: dict(env) for name, env in config.process_env.items()}
    own.setdefault("lake", {})["RECLOOP_FLUSH_AGE_MS"] = str(FLUSH_AGE_MS)
    return replace(config, process_env=own)


def _report(figures: dict[str, Any], arguments: argparse.Namespace) -> int:
    figures["machine"] = machine()
    figures["command"] = command_line("compare-samples")
    figures["failed_checks"] = problems = failures(figures, arguments.min_samples, speeds=not arguments.quick)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "samples.json").write_text(json.dumps(figures, indent=2) + "\n")
    (arguments.out / "samples.html").write_text(page(figures))
    print(_summary(figures))
    say(f"report: {arguments.out / 'samples.html'}")
    for problem in problems:
        print(f"compare-samples: FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _summary(figures: dict[str, Any]) -> str:
    header = ("scheme", "samples", "complete", "batch", "streaming", "instant", "AUC", "p50 s", "p99 s",
              "state MB", "written MB", "CPU s")  # fmt: skip
    rows = [
        (
            name, one["samples"], round(one["completeness"], 6),
            *(round(one["leak_rate"][kind], 4) for kind in ("batch", "streaming", "instant")),
            round(one["auc"], 4), one["delay_s"]["p50"], one["delay_s"]["p99"],
            round(one["state_bytes"] / 1e6, 1), round(one["written_bytes"] / 1e6, 1), one["cpu_s"],
        )
        for name, one in figures["schemes"].items()
    ]  # fmt: skip
    speeds = figures["speeds"]
    said = [f"static {speeds['static']['leak_rate']:.2%}"]
    said += [f"{one['updates_per_min']:.3g}/min {one['leak_rate']:.2%}" for one in speeds["classes"]]
    return f"{table(header, rows)}\nlookup's leak of {speeds['column']} by speed: {', '.join(said)}"


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local compare-samples", description=__doc__)
    parser.add_argument("--data", type=Path, help="a real log: MovieLens 100K folder, .csv or .parquet")
    parser.add_argument("--items", type=int, help="shown items wanted; 55,000, of a real log all")
    parser.add_argument("--rate", type=float, help="simulated requests per second; 30, quick 15")
    parser.add_argument("--seeds", type=int, default=3, help="models per scheme")
    parser.add_argument("--quick", action="store_true", help="a tenth of the traffic: that it works")
    parser.add_argument("--again", action="store_true", help="compare the last run once more")
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "out", help="folder of samples.json and .html"
    )
    parser.add_argument("--run-dir", type=Path, default=REPOSITORY / "out" / "run", help="state and logs")
    parser.add_argument("--port-offset", type=int, default=0, help="moves every port, for a second stack")
    parser.add_argument("--free-ports", action="store_true", help="any free ports instead")
    arguments = parser.parse_args(argv)
    if arguments.items is not None and arguments.items < 1_000:
        parser.error(f"--items {arguments.items}: at least 1,000")
    if arguments.rate is not None and not 1 <= arguments.rate <= 1_000:
        parser.error(f"--rate {arguments.rate}: 1 to 1,000")
    if arguments.seeds < 3:
        parser.error(f"--seeds {arguments.seeds}: at least 3")
    arguments.rate = arguments.rate or (QUICK_RATE if arguments.quick else RATE)
    arguments.min_samples = MIN_SAMPLES
    if arguments.quick:
        arguments.items = arguments.items or QUICK_ITEMS
        arguments.min_samples = arguments.items * 9 // 10
    elif arguments.data is None:
        arguments.items = arguments.items or ITEMS
    return arguments
