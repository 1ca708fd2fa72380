"""The loop's benchmark on a small world: load, rounds beside the bare chain, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.demo import SIM
from tests.bench_kit import run_benchmark

pytestmark = pytest.mark.system


def test_the_loop_and_the_bare_chain_are_measured_by_turns(tmp_path: Path) -> None:
    world = {f"RECLOOP_SIM__{name}": value for name, value in SIM.items()}
    arguments = ["--rounds", "1", "--seconds", "1", "--load-s", "20", "--rate", "20"]
    result = run_benchmark("loop", arguments, tmp_path, world)
    names = [row["name"] for row in result["rows"]]
    assert names == [
        "loop_vs_bare_chain_rps", "loop_vs_bare_chain_p50", "loop_p99_ms_at_60rps", "freshness_p50_s",
        "freshness_p99_s", "publish_to_applied_p99_ms",
    ]  # fmt: skip
    assert all(row["ours"]["median"] > 0 for row in result["rows"])
    assert result["wrong"]["looked_at"] > 20
    assert set(result["sides"]) == {"ours_1", "ours_8", "bare_1", "bare_8"}
    of_ours = result["sides"]["ours_8"]["cpu_ms_per_request"]
    assert of_ours["ranking"]["median"] > of_ours["trainer"]["median"] == of_ours["joiner"]["median"] == 0
