"""``python -m local rollback-demo``: faults planted under load, found and mended by the loop itself.

A stack of a smaller simulated world serves requests; beside `online`, a baseline arm that is a bit older
serves some of the users. Planted one after the other, each at a known moment: corrupt deltas on Kafka, an
exploding learning rate, a damaged and a bad full model, and bots that click everything. Nobody helps:
ranking refuses, the trainer takes no step, the gate rejects, the guard takes the arm back (only the
trainer's setting is set right by the command, as by an operator). Writes out/rollback.json, its evidence to
out/rollback/; exits with 1 when something that must show does not.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from local import demo
from local.commands import EXIT_INTERRUPTED
from local.rollback.run import Plan, Run, run
from local.rollback.verdict import Logs, failures, figures
from local.stack_config import StackConfig
from local.table import table
from local.up import Interrupted
from services.contract.feature_sets import WORLD

FULL = Plan(
    rate=30.0, candidates=1_000, duration_s=900.0, lead_s=40.0, exploded_s=10.0, warm_s=30.0, bots_s=30.0,
    after_s=30.0, patience_s=120.0,
)  # fmt: skip
QUICK = Plan(
    rate=30.0, candidates=300, duration_s=600.0, lead_s=10.0, exploded_s=3.0, warm_s=10.0, bots_s=20.0,
    after_s=8.0, patience_s=60.0,
)  # fmt: skip
# Of release and trainer: how old the baseline is, what a look sees, what it takes back (above a minute).
FULL_TIMES = {"age_s": 110, "rollback_s": 100, "window_s": 40, "base_interval_s": 40}
QUICK_TIMES = {"age_s": 75, "rollback_s": 75, "window_s": 30, "base_interval_s": 25}
BASELINE_SHARE, LOOK_S, MIN_REQUESTS = 0.2, 2, 60
# Of the user's own servers.
THEIRS = ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "RECLOOP_MODEL_STORE_URI")


def main(argv: list[str]) -> int:
    """Runs the command."""
    arguments = _arguments(argv)
    plan = QUICK if arguments.quick else FULL
    plan = replace(plan, rate=arguments.rate or plan.rate)
    folder = arguments.out / "rollback"
    try:
        done = run(folder, _config(arguments), plan)
    except Interrupted:
        return EXIT_INTERRUPTED
    return _report(done, folder, arguments)


def processes(times: dict[str, int]) -> dict[str, dict[str, str]]:
    """Settings of release and trainer."""
    release = {
        "AUTO_PROMOTE": "true",
        "BASELINE_SHARE": str(BASELINE_SHARE),
        "BASELINE_AGE_S": str(times["age_s"]),
        "ROLLBACK_S": str(times["rollback_s"]),
        "WINDOW_S": str(times["window_s"]),
        "LOOK_INTERVAL_S": str(LOOK_S),
        "GUARD__MIN_REQUESTS": str(MIN_REQUESTS),
    }
    return {
        "release": {f"RECLOOP_{name}": value for name, value in release.items()},
        "trainer": {"RECLOOP_BASE_INTERVAL_S": str(times["base_interval_s"])},
    }


def _config(arguments: argparse.Namespace) -> StackConfig:
    why = "this command plants faults, and begins with servers of its own"
    own = processes(QUICK_TIMES if arguments.quick else FULL_TIMES)
    config = demo.own_stack(arguments, THEIRS, why, own)
    return replace(config, env={**config.env, "RECLOOP_FEATURE_SET": WORLD})


def _report(done: Run, folder: Path, arguments: argparse.Namespace) -> int:
    def said(name: str) -> Any:
        return json.loads((folder / f"{name}.json").read_text())

    answers = _columns(folder / "load" / "evidence" / "requests.parquet")
    scored = answers["scored"].astype(bool)
    logs = Logs(
        {name: column[scored] for name, column in answers.items()},
        _columns(folder / "load" / "evidence" / "applied.parquet"),
        said("events"), said("dead_letters"), said("deltas"),
    )  # fmt: skip
    found = figures(done.plants, done.chain, logs, said("load/demo"), said("bots"))
    found |= {"deaths": done.deaths, "quick": arguments.quick}
    found["failed_checks"] = failures(found)
    return demo.publish("rollback-demo", found, _summary(found), arguments.out / "rollback.json")


def _columns(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    rows = pq.read_table(path)
    return {name: rows.column(name).to_numpy(zero_copy_only=False) for name in rows.column_names}


def _summary(found: dict[str, Any]) -> str:
    keys = ("name", "detected_s", "recovered_s", "served_bad", "served_bad_after")
    header = ("fault", "detected s", "recovered s", "bad answers", "after recovery")
    cases = [tuple("" if one[key] is None else one[key] for key in keys) for one in found["cases"]]
    rolled = [
        f"rolled back by {', '.join(one['failed']) or one['reason']}: {one['taken_back_s']} s of learning, "
        f"{one['rows']:,} rows, served {one['healthy_s']} s after the order"
        for one in found["rollbacks"]
    ]
    ctr = ", ".join(
        f"{name} {arms['online']} (baseline {arms['baseline']})" for name, arms in found["true_ctr"].items()
    )
    return "\n".join(
        [
            table(header, cases),
            *rolled,
            f"true click probability of what users saw: {ctr}",
            f"load: {found['requests']:,} requests, {found['errors']} errors; "
            f"bots: {found['bots']['requests']:,} requests, {found['bots']['clicks']:,} clicks",
            "answers by arm: " + ", ".join(f"{arm} {count:,}" for arm, count in found["arms"].items()),
        ]
    )


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = demo.parser("rollback-demo", __doc__, "rollback.json")
    parser.add_argument("--rate", type=float, help=f"users' requests per second; {FULL.rate:g}")
    arguments = parser.parse_args(argv)
    if arguments.rate is not None and not 10 <= arguments.rate <= 1_000:
        parser.error(f"--rate {arguments.rate}: 10 to 1,000; below it the guard sees too little")
    return arguments
