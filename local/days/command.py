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
from dataclasses import replace
from pathlib import Path
from typing import Any

from local import demo
from local.commands import EXIT_INTERRUPTED
from local.days import evidence
from local.days.plan import ARMS, BOUND_S, FULL, ONLINE_DAILY, QUICK, WINDOW_S, Plan
from local.days.run import DEADLINE_S, Run, run
from local.days.verdict import failures, figures, remarks
from local.errors import LocalError
from local.stack_config import StackConfig
from local.table import table
from local.up import Interrupted, say

PROCESSES = {
    "lake": demo.LAKE,
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
    why = "the days begin with a stack of their own"
    return demo.own_stack(arguments, THEIRS, why, PROCESSES, extra=("lake",))


def _report(done: Run, folder: Path, plan: Plan, out: Path) -> int:
    say("judging the days")
    load = json.loads((folder / "load" / "demo.json").read_text())
    found = figures(done, plan, load, evidence.read(folder / "load" / "evidence"))
    found |= {"failed_checks": failures(found), "remarks": remarks(found)}
    return demo.publish("demo-days", found, _summary(found), out / "demo-days.json")


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
    parser = demo.parser("demo-days", __doc__, "demo-days.json", "two short days")
    parser.add_argument(
        "--rate", type=float, help=f"requests per second; {FULL.rate:g}, quick {QUICK.rate:g}"
    )
    parser.add_argument("--again", action="store_true", help="report on the last run once more")
    arguments = parser.parse_args(argv)
    if arguments.rate is not None and not 1 <= arguments.rate <= 1_000:
        parser.error(f"--rate {arguments.rate}: 1 to 1,000")
    return arguments
