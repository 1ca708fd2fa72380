"""Watches what an arm serves against a baseline arm, and says when to take it back. Pure.

The baseline serves a small share of the same users with a model that is some minutes older: what happens to
everybody (a holiday, a lost feature, bots that click everything) happens to both, what the newest updates did
happens to one. Both are judged on the same window of samples.

| check | breach when |
|---|---|
| log_loss | the arm's exceeds the baseline's by more than the limit, beyond what chance does |
| calibration | clicks that came over clicks foretold has left the band, and the baseline's has not |
| ctr | the arm's click rate is below the baseline's by more than the limit, beyond what chance does |
| psi | the arm's scores are another population than the baseline's, and no better by their labels |

A figure is beyond chance when it is so by ``sigmas`` standard errors, taken over requests (rows of one
request are one draw). Below ``min_requests`` on either side nothing is said. One breach in a window is
noise often enough: it takes ``breaches`` windows in a row to order a rollback; scores of another population
or a forecast that is off tenfold take one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.contract.quality import auc, calibration, histogram, losses, population_stability
from services.contract.sequential import ratio
from services.release.evidence import Check, failed, said
from services.release.settings import GuardRules

Column = NDArray[np.float32]
GROSS = 10.0


@dataclass(frozen=True)
class Served:
    """A window of an arm: rows [n] with the request that each belongs to (numbers from 0 to r-1)."""

    labels: Column
    scores: Column
    weights: Column
    requests: NDArray[np.int64]

    @property
    def size(self) -> int:
        """Requests."""
        return int(self.requests.max()) + 1 if len(self.requests) else 0

    def figures(self) -> dict[str, float]:
        """Requests; click rate, AUC, log loss, calibration, each NaN where there is too little to say it."""
        loss, _ = self.log_loss()
        rate, _ = self.click_rate()
        right = calibration(self.labels, self.scores, self.weights)
        order = auc(self.labels, self.scores)
        requests = float(self.size)
        return {"requests": requests, "ctr": rate, "auc": order, "log_loss": loss, "calibration": right}

    def log_loss(self) -> tuple[float, float]:
        """(mean, its variance over requests)."""
        return self._mean(losses(self.labels, self.scores))

    def click_rate(self) -> tuple[float, float]:
        """(clicks per row shown, its variance over requests)."""
        return self._mean((self.labels > 0).astype(np.float64))

    def _mean(self, values: NDArray[np.floating]) -> tuple[float, float]:
        shown = np.bincount(self.requests, self.weights, self.size).astype(np.float64)
        summed = np.bincount(self.requests, self.weights * values, self.size).astype(np.float64)
        return ratio(shown, summed)


@dataclass(frozen=True)
class GuardVerdict:
    """``decision``: "hold" (go on), "wait" (too little to judge by) or "rollback"."""

    decision: str
    breaches: int
    checks: tuple[Check, ...]
    arm: dict[str, float]
    baseline: dict[str, float]

    def evidence(self) -> dict[str, object]:
        """The checks and what they were made of."""
        return {
            "failed": failed(self.checks),
            "windows_in_breach": self.breaches,
            "checks": [check.said() for check in self.checks],
            "arm": {name: said(value) for name, value in self.arm.items()},
            "baseline": {name: said(value) for name, value in self.baseline.items()},
        }


class Guard:
    """Of one arm; remembers how many windows in a row were in breach."""

    def __init__(self, rules: GuardRules) -> None:
        self._rules = rules
        self._breaches = 0

    def look(self, arm: Served, baseline: Served) -> GuardVerdict:
        """Judges a window. After "rollback" it begins anew."""
        rules = self._rules
        figures = arm.figures(), baseline.figures()
        if min(arm.size, baseline.size) < rules.min_requests:
            return GuardVerdict("wait", self._breaches, (), *figures)
        checks = _checks(arm, baseline, rules)
        gross = not np.isfinite(arm.scores).all() or _is_gross(figures[0]["calibration"])
        broken = failed(checks)
        self._breaches = self._breaches + 1 if broken else 0
        breaches = self._breaches
        rollback = bool(broken) and (gross or "psi" in broken or breaches >= rules.breaches)
        if rollback:
            self._breaches = 0
        return GuardVerdict("rollback" if rollback else "hold", breaches, checks, *figures)


def _is_gross(right: float) -> bool:
    return not 1 / GROSS < right < GROSS


def _checks(arm: Served, baseline: Served, rules: GuardRules) -> tuple[Check, ...]:
    (loss, loss_variance), (loss_then, loss_variance_then) = arm.log_loss(), baseline.log_loss()
    (rate, rate_variance), (rate_then, rate_variance_then) = arm.click_rate(), baseline.click_rate()
    chance = rules.sigmas * math.sqrt(loss_variance + loss_variance_then)
    lost = rules.sigmas * math.sqrt(rate_variance + rate_variance_then)
    checks = [
        Check("log_loss", loss - loss_then, high=rules.max_log_loss_gain + chance),
        Check("ctr", rate, low=rate_then * (1 - rules.max_ctr_loss) - lost),
        Check(
            "psi",
            population_stability(histogram(arm.scores), histogram(baseline.scores)),
            # Told apart by labels, an arm that has learned more than its baseline is no breach.
            high=rules.max_psi if loss > loss_then else math.inf,
        ),
    ]
    then = calibration(baseline.labels, baseline.scores, baseline.weights)
    if rules.calibration_low <= then <= rules.calibration_high:
        right = calibration(arm.labels, arm.scores, arm.weights)
        checks.append(Check("calibration", right, rules.calibration_low, rules.calibration_high))
    return tuple(checks)
