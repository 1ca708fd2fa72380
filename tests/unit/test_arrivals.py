"""Arrivals are Poisson and fixed before the first request; a surge only adds to them."""

import numpy as np
import pytest

from loadgen.arrivals import SHOWN, arrival_times, plan
from loadgen.scenarios import PEAK_ARRIVALS, SCENARIOS
from loadgen.timeline import Timeline, schedule


def test_arrivals_come_at_the_rate_with_poisson_gaps():
    times = arrival_times(np.random.default_rng(0), 66.0, 1_000.0)
    assert abs(len(times) - 66_000) < 5 * np.sqrt(66_000)
    gaps = np.diff(times)
    assert (gaps >= 0).all() and times[0] >= 0 and times[-1] < 1_000
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.02)


def test_a_plan_is_the_same_for_the_same_run_and_another_for_another():
    one, again, other = (plan(7, 66, 20, run) for run in (0, 0, 1))
    for name in ("at_s", "needs", "who_draws", "click_draws", "delay_draws"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert len(one) != len(other) or not np.array_equal(one.at_s, other.at_s)
    assert one.click_draws.shape == one.delay_draws.shape == (len(one), SHOWN)
    assert one.who_draws.shape == (len(one), 3) and (np.diff(one.at_s) >= 0).all()


def come(arrivals, timeline):
    factors = [timeline.arrivals_factor(at) for at in arrivals.at_s.tolist()]
    return arrivals.at_s[[arrivals.comes(number, factor) for number, factor in enumerate(factors)]]


def test_a_surge_doubles_the_arrivals_while_it_lasts_and_the_usual_ones_stay():
    arrivals = plan(7, 300, 120)
    at_s = come(arrivals, Timeline(schedule("black-friday@40-80", 0.0)))
    before, during, after = (((at_s >= a) & (at_s < a + 40)).sum() for a in (0, 40, 80))
    assert during / before == pytest.approx(2.0, rel=0.06)
    assert after / before == pytest.approx(1.0, rel=0.06)
    usual = come(arrivals, Timeline())
    assert abs(len(usual) - 36_000) < 5 * np.sqrt(36_000)
    assert np.isin(usual, at_s).all()


def test_the_usual_arrivals_are_those_that_come_without_a_scenario_with_their_draws():
    arrivals = plan(7, 66, 60)
    usual = arrivals.usual()
    np.testing.assert_array_equal(usual.at_s, come(arrivals, Timeline()))
    assert len(usual) < len(arrivals) / 3 and usual.usual().at_s.size == len(usual)
    rows = np.flatnonzero(np.isin(arrivals.at_s, usual.at_s))
    for name in ("needs", "who_draws", "click_draws", "delay_draws"):
        np.testing.assert_array_equal(getattr(usual, name), getattr(arrivals, name)[rows])


def test_all_scenarios_together_do_not_need_more_arrivals_than_are_drawn():
    together = Timeline(schedule(",".join(f"{name}@0" for name in SCENARIOS), 0.0))
    assert together.arrivals_factor(1.0) == pytest.approx(PEAK_ARRIVALS)
    assert np.prod([one.arrivals for one in SCENARIOS.values()]) <= PEAK_ARRIVALS
