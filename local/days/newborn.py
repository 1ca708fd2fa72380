"""How soon new items find whom they suit: the click rate of an item's showings by its age. Pure.

An item that was just born is shown to whomever exploration picks; its click rate rises as the model learns
who likes it. Its final rate is that of the second day of its life. The half-life is the end of the first span
of ages in which the rate is at least half of that: 10 s means "within 10 s".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPAN_S = 10
# Of a span of ages; the mean of fewer says nothing.
MIN_SHOWN = 50


@dataclass(frozen=True)
class Curve:
    """Mean true click probability by span of age (None: too seldom shown), how often shown, the final one."""

    ctr: list[float | None]
    shown: list[int]
    final: float | None

    def half_life_s(self) -> float | None:
        """Age by which half of the final rate is reached; None when it never is, or nothing is known."""
        if self.final is None:
            return None
        for place, rate in enumerate(self.ctr):
            if rate is not None and rate >= self.final / 2:
                return float((place + 1) * SPAN_S)
        return None


def curve(age_s: NDArray[np.float64], p: NDArray[np.float64], day_s: int) -> Curve:
    """Of showings [n]: the ages and the true click probabilities of new items."""
    span = np.floor(age_s / SPAN_S).astype(np.int64)
    spans = math.ceil(2 * day_s / SPAN_S)
    inside = (span >= 0) & (span < spans)
    shown = np.bincount(span[inside], minlength=spans)
    total = np.bincount(span[inside], p[inside], minlength=spans)
    grown = p[(age_s >= day_s) & (age_s < 2 * day_s)]
    return Curve(
        [float(t / n) if n >= MIN_SHOWN else None for t, n in zip(total, shown, strict=True)],
        shown.tolist(),
        float(grown.mean()) if len(grown) >= MIN_SHOWN else None,
    )
