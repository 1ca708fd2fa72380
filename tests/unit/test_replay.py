"""A replay is cut at barriers of event time, and says when the loop did not close."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen import log_blocks, replay
from loadgen.datasets import Events


def events_at(seconds: list[int]) -> Events:
    n = len(seconds)
    stamps = np.array(sorted(seconds), dtype=np.int64) * 1_000_000
    return Events("log", stamps, ["u"] * n, ["i"] * n, np.zeros(n), np.zeros(n, dtype=np.int64))


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=80), st.integers(1, 900))
def test_blocks_cover_every_event_once_and_end_after_it(seconds, barrier_s):
    events = events_at(seconds)
    covered, begins_us = [], 0
    barrier_us = barrier_s * 1_000_000
    for indices, end_us in log_blocks.blocks(events, barrier_s):
        stamps = events.timestamps_us[indices.start : indices.stop]
        # One interval, none before the last barrier; the next event is at or behind this one's.
        assert len({stamp // barrier_us for stamp in stamps.tolist()}) == 1
        assert begins_us <= stamps[0] and stamps[-1] < end_us and end_us % barrier_us == 0
        begins_us = end_us
        covered += list(indices)
    assert covered == list(range(len(seconds)))


def test_a_barrier_stands_where_the_next_interval_with_events_begins():
    ends = [end_us // 1_000_000 for _, end_us in log_blocks.blocks(events_at([10, 70, 3_605, 3_606]), 60)]
    assert ends == [60, 3_600, 3_660]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1),
)
def test_a_visit_is_one_user_in_one_moment_with_each_item_once(rows):
    rows.sort()
    events = Events(
        "log",
        np.array([row[0] for row in rows], dtype=np.int64),
        [row[1] for row in rows],
        [row[2] for row in rows],
        np.zeros(len(rows)),
        np.zeros(len(rows), dtype=np.int64),
    )
    made = log_blocks.visits(events, range(len(rows)))
    assert [index for visit in made for index in visit] == list(range(len(rows)))
    for visit in made:
        assert len({rows[index][:2] for index in visit}) == 1
        assert len({rows[index][2] for index in visit}) == len(visit)
    # As few as possible: two neighbours are one visit, unless they share an item.
    for before, after in itertools.pairwise(made):
        if rows[before.start][:2] == rows[after.start][:2]:
            assert rows[after.start][2] in {rows[index][2] for index in before}


def test_an_event_on_the_boundary_belongs_to_the_next_interval():
    assert [list(indices) for indices, _ in log_blocks.blocks(events_at([599, 600]), 600)] == [[0], [1]]


FINE = {"events": 5, "samples": 5, "duplicates": 0, "deltas_applied": 3, "dataset": "log", "auc_all": 0.5}


def test_a_closed_loop_has_no_failures():
    assert replay.failures(FINE) == []


@pytest.mark.parametrize(
    "change, word",
    [
        ({"samples": 4}, "samples 4"),
        ({"duplicates": 1}, "duplicate"),
        ({"deltas_applied": 0}, "no delta"),
        ({"dataset": "ml-100k", "events": 100_000, "samples": 100_000, "auc_all": 0.7}, "below 0.72"),
    ],
)
def test_what_shows_an_open_loop_is_named(change, word):
    assert any(word in problem for problem in replay.failures(FINE | change))


@pytest.mark.parametrize(
    "argument", [["--barrier-s", "0"], ["--concurrency", "0"], ["--concurrency", "9999"]]
)
def test_impossible_arguments_are_refused(argument, capsys):
    with pytest.raises(SystemExit):
        replay.parse(["--data", "x", *argument])
    assert argument[0] in capsys.readouterr().err
