"""The benchmark of scale as it runs, small."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bench_scale import CURVES, missed
from tests.bench_kit import run_benchmark


def test_a_small_run_has_every_curve_and_the_recall_that_is_promised(tmp_path: Path) -> None:
    arguments = {
        "point-s": 0.01, "candidates": 100, "items": 10_000, "rows": 10_000, "delta-rows": 100,
        "known-items": 2_000, "known-rows": 2_000, "requests": 200,
    }  # fmt: skip
    given = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    result = run_benchmark("scale", given, tmp_path)
    assert set(result["curves"]) == set(CURVES)
    for name, points in result["curves"].items():
        for column in CURVES[name].columns:
            assert all(point[column] is not None for point in points), (name, column)
    assert [point["x"] for point in result["curves"]["deltas"]] == [0, 100]
    assert result["curves"]["items"][0]["recall"] >= 0.98
    assert result["missed"] == missed(result["curves"]) == []
    assert result["sizing"]["mb_per_s"] > 100
