"""``python -m local backfill-demo``: adds a feature view to a running stack and gives it its past.

A stack of a smaller simulated world, with day 0 in its lake, serves requests. A view that nobody has seen
before joins it (``add-view``), gets its states from the lake (``backfill-view``) while requests go on, and
its columns are put beside the samples of the past (``recompute-samples``), which can then be trained on.
Judged are the states (every view, against the log, bit for bit), what was served meanwhile, and models with
the view, without it, and with what forward logging alone would have given. Writes out/backfill.json, its
evidence to out/backfill/; exits with 1 when something that must show does not.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from local import demo
from local.backfill.learn import learn
from local.backfill.run import Plan, Run, run
from local.backfill.verdict import MIN_ROWS, failures, figures
from local.backfill.view import USER_LATELY
from local.commands import EXIT_INTERRUPTED
from local.errors import LocalError
from local.stack_config import StackConfig
from local.table import table
from local.up import Interrupted, say
from services.contract.feature_sets import WORLD

FULL = Plan(rate=20.0, lead_s=60.0, duration_s=240.0, audit_rows=12_000, served_share=0.05)
QUICK = Plan(rate=10.0, lead_s=20.0, duration_s=90.0, audit_rows=2_000, served_share=0.1)
# Of the user's own servers.
THEIRS = ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "RECLOOP_LAKE_URI")


def main(argv: list[str]) -> int:
    """Runs the command."""
    arguments = _arguments(argv)
    plan = _plan(arguments)
    folder = arguments.out / "backfill"
    if not arguments.again:
        try:
            done = run(folder, _config(arguments), plan)
        except Interrupted:
            return EXIT_INTERRUPTED
    elif (folder / "run.json").is_file():
        done = Run.load(folder)
    else:
        raise LocalError(f"--again: {folder} holds no finished run")
    say("training a model on each past")
    return _report(done, folder, arguments)


def _plan(arguments: argparse.Namespace) -> Plan:
    plan = QUICK if arguments.quick else FULL
    rate, duration_s = arguments.rate or plan.rate, arguments.duration_s or plan.duration_s
    return replace(plan, rate=rate, duration_s=duration_s)


def _config(arguments: argparse.Namespace) -> StackConfig:
    why = "this command audits all of a stack, and begins with its own"
    config = demo.own_stack(arguments, THEIRS, why, {"lake": demo.LAKE}, extra=("lake",))
    return replace(config, env={**config.env, "RECLOOP_FEATURE_SET": WORLD})


def _report(done: Run, folder: Path, arguments: argparse.Namespace) -> int:
    names = {"load": "load/demo", "states": "states", "served": "served"}
    said = {name: json.loads((folder / f"{path}.json").read_text()) for name, path in names.items()}
    learned = learn(folder, done, WORLD, arguments.seeds)
    found = figures(done, USER_LATELY.full_name, said, learned)
    found["failed_checks"] = failures(found, QUICK.audit_rows if arguments.quick else MIN_ROWS)
    return demo.publish("backfill-demo", found, _summary(found), arguments.out / "backfill.json")


def _summary(found: dict[str, Any]) -> str:
    audited = {found["view"]: found, **found["default_views"]}
    header = ("view", "rows", "not default", "mismatches", "missing", "extra")
    rows = [
        (name, *(one[key] for key in ("rows", "rows_not_default", "mismatches", "missing", "extra")))
        for name, one in audited.items()
    ]
    learned = [
        (name, one["rows"], *(round(one[key], 4) for key in ("mean", "min", "max", "error")))
        for name, one in found["auc"].items()
    ]
    forward, served = found["forward_logging"], found["served_audit"]
    steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in found["steps_s"].items())
    return "\n".join(
        [
            table(header, rows),
            f"trainable after {found['trainable_s']:.1f} s ({steps}): {found['trainable_rows']:,} rows",
            f"forward logging: {forward['rows']:,} rows by then; as many after "
            f"{forward['seconds_to_as_many']:,} s at {forward['samples_per_s']:.0f} samples/s",
            table(("trained on", "rows", "AUC", "min", "max", "error"), learned),
            f"served meanwhile: {served['requests']} requests, {served['rows']:,} values audited: "
            f"{served['mismatches']} mismatches, {served['missing']} missing, {served['extra']} extra; "
            f"states at most {served['behind_ms_max']:.0f} ms behind",
            f"load: {found['load']['requests']:,} requests, {found['load']['errors']} errors",
        ]
    )


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = demo.parser("backfill-demo", __doc__, "backfill.json")
    parser.add_argument("--rate", type=float, help="requests per second; 20, quick 10")
    parser.add_argument("--duration-s", type=float, help="of the load; 240, quick 90")
    parser.add_argument("--again", action="store_true", help="report on the last run once more")
    parser.add_argument("--seeds", type=int, default=3, help="models per past")
    arguments = parser.parse_args(argv)
    if arguments.seeds < 1:
        parser.error(f"--seeds {arguments.seeds}: at least 1")
    if arguments.rate is not None and not 1 <= arguments.rate <= 1_000:
        parser.error(f"--rate {arguments.rate}: 1 to 1,000")
    if arguments.duration_s is not None and not 30 <= arguments.duration_s <= 3_600:
        parser.error(f"--duration-s {arguments.duration_s}: 30 to 3,600")
    return arguments
