"""The benchmarks that need Kafka, as their commands run them, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench_kit import run_benchmark

pytestmark = pytest.mark.integration


def test_every_event_that_is_counted_was_acknowledged_on_both_sides(tmp_path: Path) -> None:
    arguments = ["--rounds", "1", "--seconds", "0.5", "--events", "20", "--in-flight", "4"]
    result = run_benchmark("collector", arguments, tmp_path)
    (row,) = result["rows"]
    assert row["name"] == "collector_vs_bare_producer"
    assert row["ours"]["median"] > 0 and row["peer"]["median"] > 0
    assert result["refused"] == 0
    assert result["producer"]["acks"] == "all"
    assert all(of["median"] > 0 for of in result["cpu_us_per_event"].values())


def test_ranking_serves_every_delta_and_every_generation_of_its_benchmark(tmp_path: Path) -> None:
    arguments = ["--pairs", "1", "--rate", "40", "--seconds", "1", "--swap-s", "4", "--rows-per-s", "400"]
    # A delta or a generation that is not served leaves no file.
    result = run_benchmark("ranking", [*arguments, "--table-rows", "5000"], tmp_path)
    names = ["rank_p99_with_deltas", "rank_p99_full_swap", "ranking_memory_ratio"]
    assert [row["name"] for row in result["rows"]] == names
    assert 0 < result["swap_s"]["median"] < 4
    assert all(of["min"] > 0 for of in result["beside_busy"].values())
    memory = result["memory_mb"]
    assert memory["peak_of_swaps"] >= memory["peak_of_load"] >= memory["loaded"] > memory["tables"] > 0
