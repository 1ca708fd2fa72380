"""Arrivals are Poisson, fixed before the first request, and follow the scenario."""

import numpy as np
import pytest

from loadgen.arrivals import SHOWN, arrival_times, plan
from loadgen.scenarios import scenario
from loadgen.world import World
from loadgen.world_config import WorldConfig

SMALL = WorldConfig(items=20_000, users=2_000)


@pytest.fixture(scope="module")
def world() -> World:
    return World(SMALL)


def test_arrivals_come_at_the_rate_with_poisson_gaps():
    times = arrival_times(np.random.default_rng(0), 66.0, 1_000.0)
    assert abs(len(times) - 66_000) < 5 * np.sqrt(66_000)
    gaps = np.diff(times)
    assert (gaps >= 0).all() and times[0] >= 0 and times[-1] < 1_000
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.02)


def test_a_plan_is_the_same_for_the_same_run_and_another_for_another(world):
    one, again, other = (plan(world, 66, 20, 5.0, run) for run in (0, 0, 1))
    np.testing.assert_array_equal(one.at_s, again.at_s)
    np.testing.assert_array_equal(one.users, again.users)
    np.testing.assert_array_equal(one.click_draws, again.click_draws)
    assert len(one) != len(other) or not np.array_equal(one.at_s, other.at_s)
    assert one.click_draws.shape == one.delay_draws.shape == (len(one), SHOWN)


def test_a_surge_doubles_the_arrivals_while_it_lasts():
    surge = scenario("black-friday")
    at_s = plan(World(SMALL, surge), 300, 120, 0.0).at_s
    before, during, after = (((at_s >= a) & (at_s < a + 40)).sum() for a in (0, 40, 80))
    assert during / before == pytest.approx(2.0, rel=0.06)
    assert after / before == pytest.approx(1.0, rel=0.06)
