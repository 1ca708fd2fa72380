"""The benchmark of features: its arithmetic, and what its targets say."""

from __future__ import annotations

import pytest

from benchmarks.features_figures import headline, latency, missed, serving, table
from benchmarks.figures import spread

CPU_S = {"echo": [0.001, 0.002, 0.001], "live": [0.002, 0.003, 0.004], "warm": [0.001, 0.002, 0.002]}
WALLS_S = {
    "echo": [0.001] * 3,
    "live": [0.002] * 99 + [0.1],
    "warm": [0.002],
    "feast": [0.1, 0.12, 0.14],
    "feast_array": [],
}


def result(**other: object) -> dict:
    served = {**serving(CPU_S, WALLS_S), "wrong_answers": 0}
    made = {**headline(served), "serving": served, **other}
    return {**made, "missed": missed(made)}


def test_a_spread_is_median_and_range() -> None:
    assert spread([3.0, 1.0, 2.0004]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_latencies_are_percentiles_of_all_requests_in_milliseconds() -> None:
    assert latency([index / 1000 for index in range(101)]) == {"p50": 50.0, "p99": 99.0}


def test_a_ratio_is_that_of_neighbouring_rounds_not_of_the_medians() -> None:
    # 2, 1.5, 4; the medians alone would say 3.
    assert serving(CPU_S, WALLS_S)["cpu_ratio"]["live"] == {"median": 2.0, "min": 1.5, "max": 4.0}
    with pytest.raises(ValueError, match="zip"):
        serving({**CPU_S, "live": [0.002]}, WALLS_S)


def test_the_headline_has_the_peers_that_were_there() -> None:
    found = headline(serving(CPU_S, WALLS_S))
    assert (found["echo_cpu_ratio"], found["feast_ratio"]) == (2.0, 60.0)
    assert found["latency_ms"]["p50"] == 2.0
    assert "feast_array_ratio" not in found


def test_a_ratio_to_the_echo_is_missed_above_and_one_to_feast_below_its_target() -> None:
    assert result()["missed"] == ["echo_cpu_ratio 2.0, wanted at most 1.5"]
    slow = result(echo_cpu_ratio=1.5, feast_ratio=49.9, feast_array_ratio=20, asof_vs_plain_ratio=2.1)
    assert slow["missed"] == [
        "feast_ratio 49.9, wanted at least 50",
        "asof_vs_plain_ratio 2.1, wanted at most 2",
    ]


@pytest.mark.parametrize(("wrong", "dropped"), [(1, 0), (0, 1)])
def test_what_is_wrong_is_missed_however_fast(wrong: int, dropped: int) -> None:
    asof = {"wrong": wrong, "dropped": dropped, "asof_ms": {"wall": 1}, "plain_ms": {"wall": 1}, "ratio": 1}
    bad = result(echo_cpu_ratio=1.0, asof=asof)
    assert bad["missed"] == ["labels are wrong or dropped"]
    bad["serving"]["wrong_answers"] = 1
    assert "answers differ from the reference encoding" in missed(bad)


def test_the_table_has_a_line_for_each_side_that_was_asked() -> None:
    lines = table(result()).splitlines()
    assert lines[2] == "| `echo` | 1.00 ms (1.00 to 2.00) |  | 1.0 ms | 1.0 ms |"
    assert lines[3].startswith("| `live` | 3.00 ms (2.00 to 4.00) | 2.00 (1.50 to 4.00) | 2.0 ms |")
    assert lines[5] == "| `feast` |  |  | 120.0 ms | 139.6 ms |"
    assert "feast_array" not in table(result())
    assert lines[-1] == "missed: echo_cpu_ratio 2.0, wanted at most 1.5"
