"""Freshness in the simulated world, in short: both scenarios through the real services, and their windows."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from local.freshness import command, world

pytestmark = pytest.mark.system


@pytest.mark.timeout(600)
def test_both_worlds_are_replayed_and_judged_by_intervals_and_windows(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = command.main(["--quick", "--free-ports", "--run-dir", str(tmp_path / "run"), "--out", str(out)])
    found = json.loads((out / "freshness.json").read_text())
    assert code == 0, found["world"]["failed_checks"]
    assert found["rows"] == []
    logs = {}
    for scenario in world.WORLDS:
        part = found["world"][scenario]
        [passed] = part["passes"]
        logs[scenario] = pq.read_table(out / "freshness" / "world" / scenario / world.LOG)
        assert passed["samples"] == passed["events"] == logs[scenario].num_rows > 8_000
        assert [row["interval_s"] for row in part["rows"]] == [world.BARRIER_S, *world.INTERVALS_S, None]
        assert [one["window_s"] for one in part["windows"]] == [600, 1_200, None]
        sizes = [one["trained_rows"] for one in part["windows"]]
        assert 0 < sizes[0] < sizes[1] <= sizes[2]
    # Features as they were served stand in the samples: where nothing moves, a model of all before knows more
    # than chance does (a standard error of the AUC is about 0.03 here).
    assert found["world"]["still"]["windows"][2]["auc"]["mean"] > 0.6
    assert logs["drift"]["user_id"].equals(logs["still"]["user_id"])
    assert not logs["drift"]["label"].equals(logs["still"]["label"])
    assert "paces" in found["world"]["setup"]["settings"]["trainer"]
    page = (out / "freshness.html").read_text()
    assert "With and without drift" in page and "The last minutes only" in page
