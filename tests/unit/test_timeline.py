"""When scenarios are on, and the clocks that run faster meanwhile."""

import math

import numpy as np
import pytest

from loadgen.timeline import Pace, Timeline, schedule
from services.contract.errors import InvalidInput


def on(timeline: Timeline, t_s: float) -> list[str]:
    return [one.name for one in timeline.on_at(t_s)]


def test_a_switch_holds_from_its_moment_to_the_other_one():
    timeline = Timeline()
    assert timeline.switch("celebrity", True, 10.0)
    assert not timeline.switch("celebrity", True, 11.0)
    assert timeline.switch("bots", True, 12.0)
    assert timeline.switch("celebrity", False, 20.0)
    assert not timeline.switch("celebrity", False, 21.0)
    found = {t: on(timeline, t) for t in (9.99, 10.0, 12.0, 19.99, 20.0, 1e9)}
    assert found == {
        9.99: [], 10.0: ["celebrity"], 12.0: ["celebrity", "bots"], 19.99: ["celebrity", "bots"],
        20.0: ["bots"], 1e9: ["bots"],
    }  # fmt: skip
    assert timeline.since("celebrity", 15.0) == 10.0 and timeline.since("celebrity", 20.0) is None


def test_what_is_on_twice_counts_once():
    timeline = Timeline(schedule("black-friday@10-30,black-friday@20-40", 0.0))
    assert [timeline.arrivals_factor(t) for t in (5.0, 15.0, 25.0, 35.0, 45.0)] == [1, 2, 2, 2, 1]
    items, categories = np.array([5]), np.array([1], np.uint8)
    assert timeline.shifts(items, categories, np.array([25.0])) == pytest.approx(1.2)
    timeline.switch("black-friday", False, 25.0)
    assert on(timeline, 26.0) == []


def test_ending_a_scenario_leaves_what_the_schedule_has_later():
    timeline = Timeline(schedule("celebrity@10-20,celebrity@50", 0.0))
    timeline.switch("celebrity", False, 15.0)
    assert [on(timeline, t) for t in (14.0, 16.0, 60.0)] == [["celebrity"], [], ["celebrity"]]


def test_a_schedule_counts_from_the_start_and_may_have_no_end():
    first, second = schedule("black-friday@40-80,celebrity@1.5", 100.0)
    assert (first.scenario.name, first.from_s, first.until_s) == ("black-friday", 140.0, 180.0)
    assert (second.from_s, second.until_s) == (101.5, math.inf)
    assert schedule("", 100.0) == ()


@pytest.mark.parametrize("text", ["bots", "bots@", "bots@x", "bots@5-5", "bots@-5", "bots@nan", "bots@9-1"])
def test_a_bad_schedule_is_named(text):
    with pytest.raises(InvalidInput, match=r"schedule=bots.*NAME@FROM"):
        schedule(text, 0.0)


def test_a_schedule_names_known_scenarios():
    with pytest.raises(InvalidInput, match="scenario=christmas"):
        schedule("christmas@5", 0.0)


def test_a_pace_never_jumps_and_is_undone_by_its_inverse():
    pace = Pace([0.0, 10.0, 20.0], [1.0, 1.0, 5.0, 1.0])
    t = np.array([-7.0, 0.0, 5.0, 10.0, 12.0, 20.0, 25.0])
    own = pace.own(t)
    np.testing.assert_allclose(own, [-7, 0, 5, 10, 20, 60, 65])
    np.testing.assert_allclose(pace.world(own), t)


def test_a_pace_is_that_of_all_scenarios_that_are_on():
    timeline = Timeline(schedule("item-flood@10-20,user-wave@15-30", 0.0))
    births = timeline.pace(1.0, lambda one: one.item_births)
    np.testing.assert_allclose(births.own(np.array([10.0, 20.0, 30.0])), [10, 110, 120])
    both = timeline.pace(0.5, lambda one: 2.0)
    np.testing.assert_allclose(both.own(np.array([10.0, 15.0, 20.0, 30.0])), [5, 10, 20, 30])
