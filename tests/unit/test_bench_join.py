"""The benchmark of the join: its log, the rows it compares, its figures and its memory formula."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from benchmarks.bench_join import Unequal, require_equal, summary
from benchmarks.figures import figure
from benchmarks.flink_cluster import MODULE
from benchmarks.join_figures import (
    Round,
    healthy,
    job_figures,
    net_cpu_s,
    ratio,
    speeds,
    verdict,
)
from benchmarks.join_flink import JOBS
from benchmarks.join_log import CLICKED_AFTER_US, SHOWN, SHOWN_AFTER_US, STEP_US, entries, heartbeat
from benchmarks.join_memory import SMALL, Formula, Shape, State, affordable, fit
from benchmarks.join_rows import labels, rows_of
from rec.events.v1 import events_pb2 as ev
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.join_events import SOURCES, Source, decode
from services.contract.join_output import Sample


def test_the_log_is_in_event_time_order_and_gives_a_sample_for_each_shown_item():
    log = list(entries(5_000))
    times = [decode(e.source, e.raw, 100)[1] for e in log]
    assert times == sorted(times)
    assert Counter(e.source for e in log) == dict.fromkeys(SOURCES, 5_000)
    assert times[-1] - times[0] == 4_999 * STEP_US + SHOWN_AFTER_US + CLICKED_AFTER_US
    task = JoinTask(JoinConfig(window_us=20_000_000, bound_us=2_000_000))
    log += [(source, "", heartbeat(times[-1] + 10**9)) for source in SOURCES]
    offsets, items, positives = Counter(), 0, 0
    for source, _, raw in log:
        for output in task.feed(source, offsets[source], raw):
            assert isinstance(output, Sample)
            items, positives = items + output.rows, positives + output.positive
        offsets[source] += 1
    assert (items, positives) == (5_000 * SHOWN, 5_000)


def test_rows_are_cut_out_of_a_sample_and_a_barrier_has_none():
    sample = ev.TrainingSample(
        request_id="r",
        item_ids=np.array([7, 2**64 - 1], "<u8").tobytes(),
        labels=np.array([1.0, 0.0], "<f4").tobytes(),
        positions=np.array([3, 4], "<u4").tobytes(),
        scores=np.array([0.5, 0.25], "<f4").tobytes(),
        item_features=bytes(range(16)),
    )
    rows = rows_of(ev.SampleRecord(sample=sample).SerializeToString())
    assert rows == [
        ("r", 7, 1.0, 3, 0.5, bytes(range(8))),
        ("r", 2**64 - 1, 0.0, 4, 0.25, bytes(range(8, 16))),
    ]
    assert labels(Counter({rows[0]: 2, rows[1]: 1})) == {("r", 7, 1.0): 2, ("r", 2**64 - 1, 0.0): 1}
    assert rows_of(ev.SampleRecord(barrier=ev.Barrier(barrier_id="b")).SerializeToString()) == []


def test_a_row_that_one_side_lacks_or_says_twice_ends_the_run():
    ours = Counter([("r", 1, 0.0), ("r", 2, 1.0)])
    require_equal("items", ours, Counter(ours))
    with pytest.raises(Unequal, match=r"flink items: 0 rows too many, 1 missing, such as \('r', 2, 1.0\)"):
        require_equal("items", ours, Counter([("r", 1, 0.0)]))
    with pytest.raises(Unequal, match="1 rows too many, 0 missing"):
        require_equal("items", ours, ours + Counter([("r", 1, 0.0)]))
    with pytest.raises(Unequal, match="1 rows too many, 1 missing"):
        require_equal("items", ours, Counter([("r", 1, 1.0), ("r", 2, 1.0)]))


def rounds(*cpu_s: float) -> list[Round]:
    return [Round(seconds, 2 * seconds, 100.0) for seconds in cpu_s]


def test_figures_are_per_cpu_second_and_the_ratio_is_of_neighbouring_rounds():
    assert figure([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}
    given = speeds(rounds(1.0, 2.0), records=300, items=1_000)
    assert given["records_per_s_core"] == {"median": 225.0, "min": 150.0, "max": 300.0}
    assert given["joined_items_per_s_core"]["max"] == 1_000.0
    assert given["records_per_s"]["max"] == 150.0
    assert ratio(rounds(1.0, 2.0, 4.0), rounds(3.0, 4.0, 20.0)) == {"median": 3.0, "min": 2.0, "max": 5.0}
    with pytest.raises(ValueError, match="shorter"):
        ratio(rounds(1.0, 2.0), rounds(1.0))


def test_a_peer_counts_from_45_000_records_a_second_of_a_core():
    assert healthy(figure([45_000.0]))
    assert not healthy(figure([44_999.0, 44_999.0, 90_000.0]))


def test_a_log_that_is_hardly_longer_than_the_start_is_no_measurement():
    assert net_cpu_s(3.0, 1.0) == 2.0
    with pytest.raises(ValueError, match="too short"):
        net_cpu_s(1.9, 1.0)


def test_a_peer_is_healthy_by_records_or_by_rows_into_its_join():
    said = job_figures(rounds(1.0), rounds(4.0), records=120_000, join_rows=440_000, items=400_000)
    assert said["records_per_s_core"]["median"] == 30_000.0
    assert said["join_rows_per_s_core"]["median"] == 110_000.0
    assert (said["healthy"], said["healthy_by_join_rows"]) == (False, True)
    assert said["ratio"]["median"] == 4.0


@pytest.mark.parametrize(
    ("ratio_", "by_records", "by_rows", "holds"),
    [
        (2.0, True, False, True),
        (2.0, False, True, True),
        (1.9, True, True, False),
        (9.0, False, False, False),
    ],
)
def test_the_ratio_holds_only_against_a_healthy_peer(ratio_, by_records, by_rows, holds):
    ours = speeds(rounds(1.0), 30_000, 100_000)
    peer = {"healthy": by_records, "healthy_by_join_rows": by_rows, "ratio": figure([ratio_])}
    said = verdict(ours, peer)
    assert said["joined_items_per_s_core"] == {"at_least": 100_000, "holds": True}
    assert said["ratio"] == {"at_least": 2.0, "flink_counts": by_records or by_rows, "holds": holds}
    slow = speeds(rounds(1.0), 30_000, 99_999)
    assert not verdict(slow, peer)["joined_items_per_s_core"]["holds"]


def test_the_summary_compares_with_the_join_of_items_and_shows_the_others():
    counts = dict.fromkeys(SOURCES, 30_000)
    measured = {"ours": rounds(1.0), "plain": rounds(8.0), "items": rounds(4.0)}
    measured |= {"requests": rounds(3.0), "labels": rounds(1.0)}
    said = summary(measured, counts, 300_000)
    assert (said["flink"]["job"], said["ratio"]["median"]) == ("items", 4.0)
    assert said["flink"]["join_rows_per_s_core"]["median"] == 11 * 30_000 / 4
    assert said["flink_jobs"]["requests"]["ratio"]["median"] == 3.0
    assert said["flink_jobs"]["labels"]["records"] == counts[Source.IMPRESSIONS] + counts[Source.ACTIONS]
    assert set(summary({"ours": rounds(1.0)}, counts, 300_000)) == {"ours"}


def test_every_job_is_a_file_and_every_hole_in_it_is_filled():
    folder = MODULE / "src" / "main" / "resources" / "sql"
    assert {path.stem for path in folder.glob("*.sql")} == {"tables", *JOBS}
    filled = {"bootstrap", "inputs", "output", "window_s", "bound_s", "row_bytes"}
    assert {
        hole for path in folder.glob("*.sql") for hole in re.findall(r"\$\{(\w+)}", path.read_text())
    } == filled


def test_the_memory_formula_finds_again_what_the_runs_were_made_of():
    truth = Formula(base=60e6, open=4_000.0, closed=1_500.0, waiting=9_000.0)
    states = []
    for shape in SMALL:
        opened = shape.rate_per_s * (shape.window_s + shape.bound_s)
        closed, waiting = shape.rate_per_s * 2 * shape.bound_s, shape.rate_per_s * shape.shown_after_s
        rss = truth.base + truth.open * opened + truth.closed * closed + truth.waiting * waiting
        assert rss == pytest.approx(truth.predict(shape))
        states.append(State(rss, opened, closed, waiting, 0, 0))
    assert fit(states) == pytest.approx(truth, rel=1e-6)
    with pytest.raises(ValueError, match="4 of different composition"):
        fit(states[:3])


def test_the_big_run_is_made_at_a_rate_whose_memory_is_there():
    formula = Formula(base=0.0, open=5_000.0, closed=0.0, waiting=0.0)
    assert affordable(formula, 600.0, 0.0, free_bytes=100e9) == Shape(600.0, 0.0, 1_000.0)
    assert affordable(formula, 600.0, 0.0, free_bytes=3e9).rate_per_s == 500.0
    assert affordable(formula, 3_600.0, 0.0, free_bytes=100e9).rate_per_s == 200.0
    assert affordable(formula, 1e6, 0.0, free_bytes=1e9).rate_per_s == 100.0
