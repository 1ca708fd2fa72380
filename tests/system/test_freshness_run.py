"""The freshness command itself, in short: every event scored by every arm, each synchronised at its pace."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from local.freshness import command
from tests.system.conftest import REPOSITORY

pytestmark = pytest.mark.system
DAY_S = 86_400
EVENTS = 240


def log_file(path: Path) -> Path:
    """Three days, in bursts of an hour with hours of silence between them."""
    random.seed(5)
    seconds = sorted(
        880_000_000 + day * DAY_S + hour * 3_600 + random.randrange(3_600)
        for day in range(3)
        for hour in (1, 2, 9, 20)
        for _ in range(EVENTS // 12)
    )
    rows = [f"{at},u{random.randrange(9)},i{random.randrange(30)},{at % 2}" for at in seconds]
    path.write_text("timestamp,user_id,item_id,label\n" + "\n".join(rows) + "\n")
    return path


@pytest.mark.timeout(240)
def test_each_arm_is_synchronised_at_its_own_interval(tmp_path: Path) -> None:
    data = log_file(tmp_path / "log.csv")
    run_dir, out = tmp_path / "run", tmp_path / "out"
    # As make does: one partition of each event topic.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "local", "freshness", "--data", str(data), "--quick", "--free-ports"),
            *("--run-dir", str(run_dir), "--out", str(out)),
        ],
        cwd=REPOSITORY, env={**os.environ, "RECLOOP_EVENT_PARTITIONS": "1"}, check=False,
    )  # fmt: skip
    figures = json.loads((out / "freshness.json").read_text())
    assert done.returncode == 0, figures["failed_checks"]
    assert [row["interval_s"] for row in figures["rows"]] == [
        command.BARRIER_S,
        *command.INTERVALS_S,
        None,
    ]
    found = json.loads((out / "freshness" / "pass-1-600.json").read_text())
    assert found["samples"] == found["events"] == EVENTS and found["duplicates"] == 0
    # All scored what counts: the last 80 %.
    assert {arm["events"] for arm in found["arms"]} == {EVENTS - EVENTS // 5}
    deltas = pq.read_table(out / "freshness" / "evidence" / "deltas.parquet")
    sent = {
        policy: sum(1 for each in deltas["policy"].to_pylist() if each == policy)
        for policy in ("online", "every-3600", "every-18000", "every-86400", "every-604800")
    }
    # At least one per barrier (a slow machine publishes between them too), one per hour that ended, ...
    assert sent["online"] >= found["barriers"]
    assert sent["online"] > sent["every-3600"] > sent["every-18000"] > sent["every-86400"] >= 2
    assert sent["every-604800"] <= 1
    assert found["frozen_at_sequence"] is not None
