"""``python -m local demo-days``: five simulated days in ten minutes, with four ways to update a model.

A stack of a smaller simulated world serves four arms on the same users: `frozen` (the first model), `daily`
(a full model at each day's end), `online` (the first model, updated all the time) and `online_daily` (both).
All learn from what all arms served. Each day's full model is trained, registered and pushed under load. Black
Friday is the whole of day 4. Writes out/demo-days.json, its evidence to out/days/; exits with 1 when a
request failed, a sample was dropped or a switch did not happen.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from local.commands import EXIT_INTERRUPTED, refuse_theirs, run_loadgen, stack_config
from local.days import evidence
from local.days.plan import ARMS, BOUND_S, FULL, ONLINE_DAILY, QUICK, WINDOW_S, Plan
from local.days.run import DEADLINE_S, Run, run
from local.days.verdict import failures, figures, remarks
from local.errors import LocalError
from local.paths import REPOSITORY, RunPaths
from local.ports import Ports
from local.stack_config import StackConfig
from local.table import table
from local.up import Interrupted, require_down, say

# As in backfill-demo: a fifth of the usual catalogue, a tenth of its users.
SIM = {"ITEMS": "20000", "USERS": "2000", "SESSIONS": "4", "SESSION_S": "120", "DAY0_RATE": "40"}
PROCESSES = {
    # Short: what the lake does not hold yet is waited for. Nothing audits beside the run.
    "lake": {"RECLOOP_FLUSH_AGE_MS": "2000", "RECLOOP_AUDIT_INTERVAL_MS": "0"},
    # A slow answer is shown late, and its snapshot has to be there still; a stall of seconds makes nothing
    # late.
    "joiner": {
        "RECLOOP_BOUND_MS": str(BOUND_S * 1000),
        "RECLOOP_WINDOW_MS": str(WINDOW_S * 1000),
        "RECLOOP_SHOW_WITHIN_MS": str(2 * DEADLINE_S * 1000),
    },
    # Two lineages are trained, for a while three: a delta a second of each is a hundredth of a day.
    "trainer": {
        "RECLOOP_EXTRA_ARMS": json.dumps([ONLINE_DAILY]),
        "RECLOOP_PUBLISH_INTERVAL_MS": "1000",
        "RECLOOP_LINEAGE_LINGER_S": "10",
    },
}
# Of the user's own servers.
THEIRS = ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "RECLOOP_LAKE_URI", "RECLOOP_MODEL_STORE_URI")


def main(argv: list[str]) -> int:
    """Runs the command."""
    arguments = _arguments(argv)
    plan = QUICK if arguments.quick else FULL
    plan = replace(plan, rate=arguments.rate or plan.rate)
    folder = arguments.out / "days"
    if arguments.again:
        if not (folder / "run.json").is_file():
            raise LocalError(f"--again: {folder} holds no finished run")
        return _report(Run.load(folder), folder, plan, arguments.out)
    try:
        done = run(folder, _config(arguments), plan)
    except Interrupted:
        return EXIT_INTERRUPTED
    return _report(done, folder, plan, arguments.out)


def _config(arguments: argparse.Namespace) -> StackConfig:
    refuse_theirs(THEIRS, "the days begin with a stack of their own")
    paths = RunPaths(arguments.run_dir.resolve())
    require_down(paths)
    world = {f"RECLOOP_SIM__{name}": value for name, value in SIM.items()}
    if (code := run_loadgen(["day0"], {**os.environ, **world})) != 0:
        raise LocalError(f"loadgen day0 ended with status {code}; see its output above")
    ports = Ports.free() if arguments.free_ports else Ports.shifted(arguments.port_offset)
    config = stack_config(paths, ports, "simulate", None, os.environ, extra=("lake",))
    own = {**config.process_env, **PROCESSES}
    return replace(config, env={**config.env, **world}, process_env=own)


def _report(done: Run, folder: Path, plan: Plan, out: Path) -> int:
    say("judging the days")
    load = json.loads((folder / "load" / "demo.json").read_text())
    found = figures(done, plan, load, evidence.read(folder / "load" / "evidence"))
    found["command"] = shlex.join(["python", "-m", "local", "demo-days", *sys.argv[2:]])
    found["failed_checks"] = problems = failures(found)
    found["remarks"] = remarks(found)
    out.mkdir(parents=True, exist_ok=True)
    (out / "demo-days.json").write_text(json.dumps(found, indent=2) + "\n")
    print(_summary(found))
    for remark in found["remarks"]:
        print(f"demo-days: {remark}", file=sys.stderr)
    for problem in problems:
        print(f"demo-days: FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _summary(found: dict[str, Any]) -> str:
    keys = ("ctr", "ctr_true", "ctr_black_friday", "auc", "regret", "new_item_half_life_s")
    header = ("arm", "CTR", "true CTR", "on Black Friday", "AUC", "regret", "new items, s", "requests")
    rows = [
        (arm, *(_short(found["arms"][arm][key]) for key in keys), found["arms"][arm]["requests"])
        for arm in ARMS
    ]
    days = [(arm, *(_short(one) for one in found["arms"][arm]["ctr_true_by_day"])) for arm in ARMS]
    steps = (
        "generation",
        "batch_s",
        "registered_s",
        "daily_served_s",
        "caught_up_s",
        "online_daily_served_s",
    )
    switches = [(one["day"], *(_short(one[key], 1) for key in steps)) for one in found["switches"]]
    friday, load = found["black_friday"], found["load"]
    compared = [
        f"Black Friday, clicks: {one['arm']} - {one['control']} = {_short(one['difference'])} "
        f"({_short(one['low'])} to {_short(one['high'])}), p {one['p_value']:.3g}, {one['verdict']}"
        for one in friday["compared"]
    ]
    return "\n".join(
        [
            table(header, rows),
            table(("true CTR by day", *map(str, range(1, found["days"] + 1))), days),
            table(("day", *(name.removesuffix("_s").replace("_", " ") for name in steps)), switches),
            *compared,
            f"load: {load['requests']:,} requests, {found['errors']} errors; {load['samples']:,} samples, "
            f"{found['dropped_samples']} dropped; p50 and p99 {load['latency_ms']} ms",
            "CPU s: " + ", ".join(f"{name} {used:.0f}" for name, used in found["cpu_s"].items()),
        ]
    )


def _short(value: float | None, digits: int = 4) -> object:
    return "" if value is None else round(value, digits)


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m local demo-days",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="two short days: that it works")
    parser.add_argument(
        "--rate", type=float, help=f"requests per second; {FULL.rate:g}, quick {QUICK.rate:g}"
    )
    parser.add_argument("--again", action="store_true", help="report on the last run once more")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out", help="folder of demo-days.json")
    parser.add_argument("--run-dir", type=Path, default=REPOSITORY / "out" / "run", help="state and logs")
    parser.add_argument("--port-offset", type=int, default=0, help="moves every port, for a second stack")
    parser.add_argument("--free-ports", action="store_true", help="any free ports instead")
    arguments = parser.parse_args(argv)
    if arguments.rate is not None and not 1 <= arguments.rate <= 1_000:
        parser.error(f"--rate {arguments.rate}: 1 to 1,000")
    arguments.out = arguments.out.resolve()
    return arguments
