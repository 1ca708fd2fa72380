"""Bins of time, and figures of a bin's rows with their standard errors. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from local.evidence import auc
from services.contract.quality import auc_error

_BINS = 30
_WIDTHS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 86_400)
# (unit, seconds, up to this long a run)
_UNITS = (("s", 1, 600), ("min", 60, 4 * 3_600), ("h", 3_600, 4 * 86_400), ("d", 86_400, math.inf))
# Fewer say nothing about a rate, an order or a tail.
_MIN_ROWS = 5

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Bins:
    """Equal spans of time from 0 on; ``unit``, of ``unit_s`` seconds, is what the axis counts in."""

    width_s: float
    count: int
    unit: str
    unit_s: float

    @classmethod
    def over(cls, length_s: float) -> Bins:
        """About thirty, of a width that one says."""
        width = next((one for one in _WIDTHS_S if one * _BINS >= length_s), math.ceil(length_s / _BINS))
        unit, unit_s, _ = next(one for one in _UNITS if length_s <= one[2])
        return cls(width, max(1, math.ceil(length_s / width)), unit, unit_s)

    def middles(self) -> list[float]:
        """Of each bin, in the axis's unit."""
        return [(place + 0.5) * self.width_s / self.unit_s for place in range(self.count)]

    def ends(self) -> list[float]:
        """The same, where each ends."""
        return [(place + 1) * self.width_s / self.unit_s for place in range(self.count)]

    def split(self, at_s: Floats) -> list[Indices]:
        """The rows of each bin; rows beyond the ends belong to the first or last."""
        places = np.clip((at_s // self.width_s).astype(np.int64), 0, self.count - 1)
        order = np.argsort(places, kind="stable")
        edges = np.searchsorted(places[order], np.arange(self.count + 1))
        return [order[start:end] for start, end in pairwise(edges.tolist())]


# (a figure, its standard error): NaN where too few rows are there to say one.


def ratio(below: Floats, above: Floats) -> tuple[float, float]:
    """sum / sum of rows, with the delta method's error."""
    n, total = len(below), float(below.sum())
    if n < _MIN_ROWS or not total:
        return math.nan, math.nan
    rate = float(above.sum()) / total
    residual = above - rate * below
    return rate, math.sqrt(float((residual**2).sum()) * n / (n - 1)) / total


def area(labels: Floats, scores: Floats) -> tuple[float, float]:
    """AUC of rows, with its standard error (contract.quality)."""
    found = auc(labels, scores)
    positive = int((labels == 1).sum())
    negative = len(labels) - positive
    if found is None or min(positive, negative) < _MIN_ROWS:
        return math.nan, math.nan
    return found, auc_error(labels, scores)


def percentile(values: Floats, q: int) -> tuple[float, float]:
    """A percentile of rows; its error is not estimated."""
    if len(values) < _MIN_ROWS:
        return math.nan, math.nan
    return float(np.percentile(values, q)), math.nan
