"""Logarithm and sine from +, -, x, / alone: the same bits on every IEEE machine, in numpy and in Python.

A library's log differs by a last bit between processors (and numpy's between a vector and its tail), which
would be skew between a server and a batch. Errors: below 1e-12, far below a float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LN2 = 0.6931471805599453
_ROOT_HALF = 0.7071067811865476
_TWO_PI = 6.283185307179586
DAY_US = 86_400 * 1_000_000

Floats = NDArray[np.float64]


def ln(x: Floats) -> Floats:
    """Natural logarithm of numbers above 0: e x ln 2 + 2 artanh((m - 1) / (m + 1))."""
    m, e = np.frexp(x)
    low = m < _ROOT_HALF
    m = np.where(low, m * 2.0, m)
    s = (m - 1.0) / (m + 1.0)
    square = s * s
    series = np.full_like(s, 1 / 15)
    for odd in (13, 11, 9, 7, 5, 3, 1):
        series = series * square + 1 / odd
    return (e - low) * _LN2 + 2.0 * s * series


def day_sine(at_us: NDArray[np.int64], ahead_us: int = 0) -> Floats:
    """Sine of the UTC time of day, ``ahead_us`` later."""
    turn = ((at_us + ahead_us) % DAY_US).astype(np.float64) / DAY_US
    # sin(2 pi turn) = sin(2 pi x) with x in [-1/4, 1/4].
    x = np.where(turn > 0.75, turn - 1.0, np.where(turn > 0.25, 0.5 - turn, turn)) * _TWO_PI
    square = x * x
    series = np.ones_like(x)
    for n in (15, 13, 11, 9, 7, 5, 3):
        series = 1.0 - series * square / (n * (n - 1))
    return x * series
