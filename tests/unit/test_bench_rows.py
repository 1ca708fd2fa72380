"""Rows of out/bench.json: what holds, what cannot be judged, and how the older benchmarks become rows."""

from __future__ import annotations

import pytest

from benchmarks import rows
from benchmarks.bench import PARTS, features_rows, join_rows, summary
from benchmarks.figures import spread


def test_a_ratio_is_that_of_neighbouring_rounds_and_its_median_is_judged() -> None:
    # 0.9, 1.0, 0.5; the medians alone would say 1.
    one = rows.row("loop_vs_bare_chain_rps", [90, 200, 100], [100, 200, 200])
    assert one["ratio"] == {"median": 0.9, "min": 0.5, "max": 1.0}
    assert (one["ours"]["median"], one["peer"]["median"]) == (100, 200)
    assert one["holds"] is False
    assert rows.row("loop_vs_bare_chain_rps", [95, 96], [100, 100])["holds"] is True
    with pytest.raises(ValueError, match="zip"):
        rows.row("loop_vs_bare_chain_rps", [1, 2], [1])


def test_a_promise_that_is_a_number_is_judged_by_itself() -> None:
    assert rows.row("loop_p99_ms_at_60rps", [25.0])["holds"] is True
    slow = rows.row("loop_p99_ms_at_60rps", [25.1])
    assert (slow["holds"], slow["ratio"], slow["peer"]) == (False, None, None)
    assert rows.row("lookup_ids_per_s", [9e6, 11e6, 12e6])["holds"] is True


def test_how_many_times_faster_is_the_ratio_of_the_times_turned_round() -> None:
    fast = rows.row("features_vs_feast_p50", [2.0], [120.0], inverse=True)
    assert (fast["ratio"]["median"], fast["holds"]) == (60, True)


def test_against_a_peer_that_limps_nothing_holds_and_nothing_fails() -> None:
    one = rows.row("trainer_vs_fbgemm", [200], [100], healthy=False)
    assert one["holds"] is None
    assert rows.missed([one]) == ["trainer_vs_fbgemm: the peer is not healthy, 2 says nothing"]
    assert rows.table([one]).endswith("| 2 | at least 0.8 | peer not healthy |")


def test_the_table_has_a_line_for_each_row() -> None:
    found = [rows.row("freshness_p50_s", [0.9]), rows.row("collector_vs_bare_producer", [8, 9], [10, 10])]
    lines = rows.table(found).splitlines()
    assert lines[2] == "| `freshness_p50_s` | 0.9 s |  |  | at most 0.8 | no |"
    assert lines[3].startswith("| `collector_vs_bare_producer` | 8.5 events/s (8 to 9) | 10 events/s | 0.85 ")
    assert rows.missed(found) == ["freshness_p50_s 0.9, wanted at most 0.8"]


def figure(value: float) -> dict[str, float]:
    return spread([value])


def join_result(healthy: bool) -> dict:
    flink = {
        "joined_items_per_s_core": figure(60_000),
        "healthy": False,
        "healthy_by_join_rows": healthy,
    }
    return {"ours": {"joined_items_per_s_core": figure(110_000)}, "flink": flink, "ratio": figure(1.8)}


def test_rows_of_the_join_are_those_of_its_own_verdict() -> None:
    first, second = join_rows(join_result(healthy=True))
    assert (first["name"], first["holds"]) == ("join_items_per_s_core", True)
    assert (second["name"], second["ratio"]["median"], second["holds"]) == ("join_vs_flink_sql", 1.8, False)
    assert join_rows(join_result(healthy=False))[1]["holds"] is None
    assert len(join_rows({"ours": {"joined_items_per_s_core": figure(1)}})) == 1


def test_rows_of_features_are_those_whose_peers_were_there() -> None:
    served = {
        "cpu_ms": {"live": figure(2.0), "echo": figure(0.5)},
        "cpu_ratio": {"live": figure(4.0)},
        "latency_ms": {"live": {"p50": 2.5, "p99": 6.0}},
    }
    assert [one["name"] for one in features_rows({"serving": served})] == ["features_vs_echo_cpu"]
    served["latency_ms"] |= {"feast": {"p50": 140.0, "p99": 300.0}, "feast_array": {"p50": 54.0, "p99": 90.0}}
    asof = {"asof_ms": {"wall": 388}, "plain_ms": {"wall": 356}, "ratio": 1.02}
    found = features_rows({"serving": served, "feast_ratio": 56, "feast_array_ratio": 21.6, "asof": asof})
    assert [one["holds"] for one in found] == [False, True, True, True]


def test_a_part_without_figures_is_missed_and_every_part_is_a_module() -> None:
    part = {"rows": [rows.row("collector_vs_bare_producer", [9], [10])], "missed": ["1 batch was refused"]}
    found = summary({"collector": part, "loop": None})
    assert found["missed"] == ["collector: 1 batch was refused", "loop: no figures"]
    assert [one["name"] for one in found["rows"]] == ["collector_vs_bare_producer"]
    for name in PARTS:
        __import__(f"benchmarks.bench_{name}")
