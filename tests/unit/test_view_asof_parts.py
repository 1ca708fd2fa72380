"""The parts of the as-of join and of the backfill against their plain meaning."""

from __future__ import annotations

import numpy as np
import pytest

from services.contract import view_asof_reduce
from services.contract.view_asof_reduce import expand, extremes, prefix_sums
from services.contract.view_events import Event
from services.contract.view_init import below, cut_at
from services.contract.view_log import EventLog, log_of


def ranges(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random ranges of a column, empty and reversed ones among them, and all of it."""
    low, high = rng.integers(0, size + 1, 200), rng.integers(0, size + 1, 200)
    return np.append(low, 0), np.append(high, size)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 100])
def test_extremes_are_those_of_each_range(size):
    rng = np.random.default_rng(size)
    values = rng.integers(-1_000, 1_000, size)
    low, high = ranges(rng, size)
    for ufunc, of, identity in ((np.minimum, min, 5_000), (np.maximum, max, -5_000)):
        found = extremes(ufunc, identity, values, low, high)
        assert found.tolist() == [
            of(values[a:b].tolist(), default=identity) for a, b in zip(low, high, strict=True)
        ]


def test_places_are_walked_in_bounded_parts(monkeypatch):
    monkeypatch.setattr(view_asof_reduce, "MAX_PAIRS", 50)
    low, high = ranges(np.random.default_rng(1), 30)
    parts = list(expand(low, high))
    pairs = [
        (owner, place) for part in parts for owner, place in zip(*(p.tolist() for p in part), strict=True)
    ]
    assert pairs == [(i, at) for i, (a, b) in enumerate(zip(low, high, strict=True)) for at in range(a, b)]
    # A range is never divided.
    assert len(parts) > 10
    assert max(len(owner) for owner, _ in parts) <= 50


def test_differences_of_running_sums_survive_overflow():
    sums = prefix_sums(np.full(5, 1 << 62))
    assert sums[4] - sums[3] == 1 << 62


def history() -> EventLog:
    def event(at_us: int, origin: str, sequence: int) -> Event:
        fields = {"user_id": 1, "item_id": 2, "category": 0, "position": 0}
        return Event("shown", at_us, sequence, fields, origin, sequence)

    events = [
        event(10, "a", 3),
        event(30, "a", 4),
        event(20, "a", 7),  # late: after the record that reached 30
        event(25, "b", 1),
    ]
    return log_of(events, [0] * 4)


@pytest.mark.parametrize(
    ("until_us", "cut", "held"),
    [
        (0, {"a": 3, "b": 1}, 0),
        (10, {"a": 3, "b": 1}, 0),
        (11, {"a": 4, "b": 1}, 1),
        (26, {"a": 4, "b": 2}, 2),
        (30, {"a": 4, "b": 2}, 2),
        (31, {"a": 8, "b": 2}, 4),
    ],
)
def test_a_cut_ends_each_origin_where_it_first_reaches_the_time(until_us, cut, held):
    log = history()
    assert cut_at(log, until_us) == cut
    assert below(log, cut).sum() == held
