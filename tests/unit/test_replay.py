"""A replay is cut at barriers of event time, and says when the loop did not close."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen import replay
from loadgen.datasets import Events


def events_at(seconds: list[int]) -> Events:
    n = len(seconds)
    stamps = np.array(sorted(seconds), dtype=np.int64) * 1_000_000
    return Events("log", stamps, ["u"] * n, ["i"] * n, np.zeros(n), np.zeros(n, dtype=np.int64))


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=80), st.integers(1, 900))
def test_blocks_cover_every_event_once_and_end_after_it(seconds, barrier_s):
    events = events_at(seconds)
    covered = []
    last_end = 0
    for indices, end_us in replay.blocks(events, barrier_s):
        assert len(indices) > 0
        assert last_end < end_us
        for index in indices:
            assert end_us - barrier_s * 1_000_000 <= events.timestamps_us[index] < end_us
        last_end = end_us
        covered += list(indices)
    assert covered == list(range(len(seconds)))


def test_an_event_on_the_boundary_belongs_to_the_next_interval():
    assert [list(indices) for indices, _ in replay.blocks(events_at([599, 600]), 600)] == [[0], [1]]


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
