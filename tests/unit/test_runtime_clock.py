"""The run clock and the choice of idle partitions, on fake time."""

from __future__ import annotations

import itertools
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.clock import RunClock
from services.runtime.heartbeats import HeartbeatWriter, IdlePartitions
from services.runtime.kafka_producer import Producer


class Monotonic:
    """Seconds that move when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_there_is_no_event_time_before_the_first_event() -> None:
    assert RunClock(1.0, Monotonic()).now_us() is None


@pytest.mark.parametrize(("scale", "moved_us"), [(1.0, 2_000_000), (60.0, 120_000_000), (0.0, 0)])
def test_event_time_runs_on_at_the_scale(scale: float, moved_us: int) -> None:
    wall = Monotonic()
    clock = RunClock(scale, wall)
    clock.observe(5_000_000)
    wall.now += 2.0
    assert clock.now_us() == 5_000_000 + moved_us
    assert clock.runs == (scale > 0)


def test_an_older_event_does_not_move_the_clock_and_a_newer_one_does() -> None:
    wall = Monotonic()
    clock = RunClock(1.0, wall)
    clock.observe(10_000_000)
    wall.now += 1.0
    clock.observe(10_500_000)
    assert clock.now_us() == 11_000_000
    clock.observe(20_000_000)
    assert clock.now_us() == 20_000_000


def test_a_negative_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="time_scale"):
        RunClock(-1.0)


@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(0, 10**12)), min_size=1, max_size=30),
    st.sampled_from([0.0, 0.5, 1.0, 100.0]),
)
def test_the_clock_never_moves_back_and_is_never_behind_an_event(
    steps: list[tuple[float, int]], scale: float
) -> None:
    wall = Monotonic()
    clock = RunClock(scale, wall)
    last = 0
    for elapsed, event_us in steps:
        wall.now += elapsed
        clock.observe(event_us)
        now = clock.now_us()
        assert now is not None
        assert now >= event_us
        assert now >= last - 1  # one microsecond of rounding
        last = now


def test_a_partition_is_idle_after_the_bound_and_counts_as_written_then() -> None:
    idle = IdlePartitions({"a": 2, "b": 1}, idle_s=0.25, now_s=0.0)
    assert idle.take(0.24) == []
    idle.wrote("a", 1, 0.125)
    assert idle.take(0.25) == [("a", 0), ("b", 0)]
    assert idle.next_s() == 0.375
    assert idle.take(0.375) == [("a", 1)]
    assert idle.take(0.49) == []


def test_writes_elsewhere_do_not_count() -> None:
    idle = IdlePartitions({"a": 1}, idle_s=0.25, now_s=0.0)
    idle.wrote("other", 0, 0.15)
    idle.wrote("a", 5, 0.15)
    assert idle.take(0.25) == [("a", 0)]


def test_partitions_written_at_one_moment_become_idle_at_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()
    monkeypatch.setattr("services.runtime.heartbeats.time.monotonic", lambda: float(next(seconds)))
    writer = HeartbeatWriter(MagicMock(Producer), RunClock(1.0), {"a": 2, "b": 2}, lambda now_us: b"")
    writer.wrote(("a", 1), ("b", 1))
    stamps = writer._idle._last
    assert stamps["a", 1] == stamps["b", 1] > stamps["a", 0] == stamps["b", 0]
