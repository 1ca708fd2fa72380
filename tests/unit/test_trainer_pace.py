"""When a lineage that is synchronised at intervals of event time may publish."""

from __future__ import annotations

import pytest

from trainer.pace import Pace

HOUR = 3_600


def dues(pace: Pace, passed: list[int]) -> list[int]:
    """The event times at which it publishes, when it does so whenever it may."""
    found = []
    for now in passed:
        if pace.due(now):
            found.append(now)
            pace.published(now)
    return found


@pytest.mark.parametrize(
    ("passed", "published"),
    [
        # The first event time begins the first interval: nothing has left it yet.
        ([HOUR * 5 + 10, HOUR * 5 + 20], []),
        ([HOUR * 5 + 10, HOUR * 6 - 1, HOUR * 6], [HOUR * 6]),
        # Once an interval, however many publications could be made.
        ([HOUR * 5 + 10, HOUR * 6, HOUR * 6 + 5, HOUR * 7 + 1, HOUR * 7 + 2], [HOUR * 6, HOUR * 7 + 1]),
        # A silence of many intervals is one publication.
        ([HOUR * 5 + 10, HOUR * 90, HOUR * 90 + 1], [HOUR * 90]),
        # Nothing trained yet.
        ([0, 0], []),
    ],
)
def test_a_lineage_publishes_when_event_time_has_left_its_interval(passed, published) -> None:
    assert dues(Pace(HOUR), passed) == published


def test_a_restart_goes_on_in_the_interval_of_the_last_delta() -> None:
    assert dues(Pace(HOUR, published_us=HOUR * 5 + 10), [HOUR * 6 + 3]) == [HOUR * 6 + 3]
    assert dues(Pace(HOUR, published_us=HOUR * 6 + 1), [HOUR * 6 + 3]) == []


def test_a_delta_that_had_to_leave_early_ends_no_interval() -> None:
    pace = Pace(HOUR)
    assert not pace.due(HOUR * 5)
    pace.published(HOUR * 5 + 100)
    assert dues(pace, [HOUR * 5 + 200, HOUR * 6]) == [HOUR * 6]


@pytest.mark.parametrize("interval_us", [0, -1])
def test_an_interval_is_positive(interval_us: int) -> None:
    with pytest.raises(ValueError, match="interval_us"):
        Pace(interval_us)
