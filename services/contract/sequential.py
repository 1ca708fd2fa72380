"""A test of arms' click rates that may be looked at as often as one likes. Pure.

**When an arm is better.** A fixed test that is looked at after every click finds a difference that is not
there sooner or later. Here the mixture sequential probability ratio test (Robbins 1970; Johari, Pekelis,
Walsh 2017): with the estimated difference d of click rates, its variance V and effects expected around tau,

    Lambda = sqrt(V / (V + tau^2)) * exp(tau^2 d^2 / (2 V (V + tau^2)))

is, when there is no difference, a martingale of mean 1, so the chance that it *ever* reaches 1/alpha is at
most alpha. The confidence sequence is the set of differences that are not rejected.

The unit is the user, who was drawn, not the impression: rows of one user say the same thing many times. V
is that of a ratio of sums over users (delta method), so an arm is judged from ``min_users`` users on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Rules(Protocol):
    """When the test speaks: services.release.settings.SequentialRules says what the fields mean."""

    @property
    def alpha(self) -> float:
        """Chance of a verdict without a difference, over all looks."""

    @property
    def tau(self) -> float:
        """The difference of click rates that is looked for."""

    @property
    def min_users(self) -> int:
        """Of each arm, below which nothing is said."""


class ArmClicks:
    """Clicks and impressions of an arm, summed by user."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._sums = np.zeros((64, 2))

    def add(self, user_ids: list[int], shown: NDArray[np.float64], clicked: NDArray[np.float64]) -> None:
        """What users [n] were shown and clicked, beside what was added before."""
        places = [self._places.setdefault(user, len(self._places)) for user in user_ids]
        while len(self._places) > len(self._sums):
            self._sums = np.concatenate((self._sums, np.zeros_like(self._sums)))
        np.add.at(self._sums, places, np.column_stack((shown, clicked)))

    @property
    def users(self) -> int:
        """Users seen."""
        return len(self._places)

    def rate(self) -> tuple[float, float]:
        """(click rate, its variance); NaN below two users or without impressions."""
        return ratio(self._sums[: len(self._places), 0], self._sums[: len(self._places), 1])


def ratio(shown: NDArray[np.float64], clicked: NDArray[np.float64]) -> tuple[float, float]:
    """sum(clicked) / sum(shown) over users [n], and its variance by the delta method."""
    n, total = len(shown), float(shown.sum())
    if n < 2 or not total:
        return math.nan, math.nan
    rate = float(clicked.sum()) / total
    residual = clicked - rate * shown
    return rate, float((residual**2).sum()) * n / (n - 1) / total**2


@dataclass(frozen=True)
class Comparison:
    """An arm against a control at one look. ``p_value`` is valid whenever it is read; ``low`` to ``high``
    covers the true difference at every look at once with probability 1 - alpha. ``verdict``: "better",
    "worse" or "open"."""

    difference: float
    low: float
    high: float
    p_value: float
    users: int
    verdict: str


class SequentialTest:
    """Remembers the smallest p-value and the intersection of all intervals so far."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._p = 1.0
        self._low, self._high = -math.inf, math.inf

    def look(self, arm: ArmClicks, control: ArmClicks) -> Comparison:
        """One look; once the verdict is not open it stays."""
        rules = self._rules
        users = min(arm.users, control.users)
        (one, one_variance), (other, other_variance) = arm.rate(), control.rate()
        difference, variance = one - other, one_variance + other_variance
        if users >= rules.min_users and variance > 0:
            self._p = min(self._p, 1 / max(1.0, likelihood_ratio(difference, variance, rules.tau)))
            half = half_width(variance, rules.tau, rules.alpha)
            self._low = max(self._low, difference - half)
            self._high = min(self._high, difference + half)
        verdict = "better" if self._low > 0 else "worse" if self._high < 0 else "open"
        return Comparison(difference, self._low, self._high, self._p, users, verdict)


def likelihood_ratio(difference: float, variance: float, tau: float) -> float:
    """Lambda of the module docstring."""
    with_effect = variance + tau**2
    exponent = tau**2 * difference**2 / (2 * variance * with_effect)
    return math.sqrt(variance / with_effect) * math.exp(min(exponent, 700.0))


def half_width(variance: float, tau: float, alpha: float) -> float:
    """Of the confidence sequence: the difference at which Lambda is 1 / alpha."""
    with_effect = variance + tau**2
    within = math.log(with_effect / variance) + 2 * math.log(1 / alpha)
    return math.sqrt(variance * with_effect / tau**2 * within)
