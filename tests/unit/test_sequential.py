"""A/B arms: a test that may be looked at all the time without lying."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from services.contract.sequential import (
    ArmClicks,
    SequentialTest,
    half_width,
    likelihood_ratio,
)
from services.release.settings import SequentialRules

ALPHA = 0.05


def test_the_interval_is_where_the_ratio_reaches_one_over_alpha():
    for variance, tau in ((1e-6, 0.01), (4e-5, 0.003)):
        edge = half_width(variance, tau, ALPHA)
        assert likelihood_ratio(edge, variance, tau) == pytest.approx(1 / ALPHA)


def run(random: np.random.Generator, effect: float, *, users: int, looks: int, rows: int = 10) -> str:
    """One experiment of users with tastes of their own, looked at after each round; its final verdict. An
    arm's users keep coming back, so their rows are anything but independent."""
    arms = (ArmClicks(), ArmClicks())
    rates = [np.clip(random.beta(2, 18, users) + shift, 0, 1) for shift in (effect, 0.0)]
    test = SequentialTest(SequentialRules(alpha=ALPHA, tau=0.02, min_users=100))
    verdict = "open"
    for _ in range(looks):
        for arm, clicks in enumerate(arms):
            coming = random.choice(users, users // 4, replace=False)
            clicked = random.binomial(rows, rates[arm][coming])
            clicks.add(coming.tolist(), np.full(len(coming), rows), clicked)
        verdict = test.look(arms[0], arms[1]).verdict
        if verdict != "open":
            break
    return verdict


def test_looked_at_all_the_time_without_a_difference_it_lies_in_fewer_than_alpha_of_the_runs():
    random = np.random.default_rng(1)
    runs = 150
    wrong = sum(run(random, 0.0, users=300, looks=25) != "open" for _ in range(runs))
    # The bound holds for the chance of a lie at any look; one-sided 99.9 % for as many runs.
    assert wrong <= ALPHA * runs + 3.1 * math.sqrt(runs * ALPHA * (1 - ALPHA)) - 1
    assert wrong / runs <= ALPHA


def test_a_fixed_test_looked_at_as_often_would_lie_far_more_often():
    random = np.random.default_rng(1)
    lies = 0
    for _ in range(100):
        arms = (ArmClicks(), ArmClicks())
        rates = [random.beta(2, 18, 300) for _ in arms]
        for _ in range(40):
            for arm, clicks in enumerate(arms):
                coming = random.choice(300, 75, replace=False)
                clicked = random.binomial(10, rates[arm][coming])
                clicks.add(coming.tolist(), np.full(75, 10), clicked)
            (one, v_one), (other, v_other) = arms[0].rate(), arms[1].rate()
            if arms[0].users >= 100 and abs(one - other) > 1.96 * math.sqrt(v_one + v_other):
                lies += 1
                break
    assert lies / 100 > 2 * ALPHA


@pytest.mark.parametrize(("effect", "verdict"), [(0.03, "better"), (-0.03, "worse")])
def test_a_difference_that_matters_is_found(effect, verdict):
    random = np.random.default_rng(2)
    found = Counter(run(random, effect, users=600, looks=40) for _ in range(40))
    assert found[verdict] >= 36
    assert set(found) <= {verdict, "open"}


def add(arm: ArmClicks, users: range, clicked: Callable[[int], int]) -> None:
    arm.add(list(users), np.full(len(users), 10.0), np.array([clicked(user) for user in users], float))


def test_nothing_is_said_before_there_are_users_enough():
    arms = ArmClicks(), ArmClicks()
    add(arms[0], range(99), lambda user: 9)
    add(arms[1], range(99), lambda user: user % 2)
    test = SequentialTest(SequentialRules(min_users=100))
    assert test.look(*arms).verdict == "open"
    add(arms[0], range(99, 110), lambda user: 9 - user % 2)
    add(arms[1], range(99, 110), lambda user: user % 2)
    first = test.look(*arms)
    assert (first.verdict, first.users) == ("better", 110)
    assert 0 < first.low < first.difference < first.high
    assert first.p_value < 0.001


def test_a_verdict_stays():
    arms = ArmClicks(), ArmClicks()
    add(arms[0], range(200), lambda user: 5 + user % 2)
    add(arms[1], range(200), lambda user: 1 + user % 2)
    test = SequentialTest(SequentialRules())
    assert test.look(*arms).verdict == "better"
    add(arms[1], range(200), lambda user: 9)
    assert test.look(*arms).verdict == "better"
