"""The demo of the days, in short: a full model is trained and pushed under load, each arm gets its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local.days import command
from local.days.plan import ARMS, QUICK

pytestmark = pytest.mark.system


@pytest.mark.timeout(420)
def test_a_days_model_is_pushed_under_load_and_nothing_is_lost(tmp_path: Path) -> None:
    where = ["--out", str(tmp_path / "out"), "--run-dir", str(tmp_path / "run"), "--free-ports"]
    code = command.main(["--quick", *where])
    found = json.loads((tmp_path / "out" / "demo-days.json").read_text())
    assert code == 0, found["failed_checks"]
    assert found["errors"] == found["dropped_samples"] == 0
    (switch,) = found["switches"]
    assert switch["generation"] == 2
    assert 0 < switch["daily_served_s"] < QUICK.day_s and 0 < switch["online_daily_served_s"] < QUICK.day_s
    begin_s, end_s = found["black_friday"]["from_s"], found["black_friday"]["until_s"]
    assert abs(begin_s - QUICK.day_s) < 0.5 and end_s - begin_s > QUICK.day_s - 1
    for arm in ARMS:
        one = found["arms"][arm]
        assert one["requests"] > 80 and 0 < one["ctr"] < one["ctr_true"] < 1
        assert one["ctr_black_friday"] > one["ctr_true_by_day"][0]
        assert one["regret"] > 0
    # What learns all the time orders what it shows better than chance does; the first model hardly does.
    assert found["arms"]["online"]["auc"] > 0.55
