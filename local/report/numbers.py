"""How a number is said, with its unit. Pure; None and NaN are a dash."""

from __future__ import annotations

import math
from typing import TypeGuard

ABSENT = "–"


def known(value: float | None) -> TypeGuard[float]:
    """Whether there is a number at all."""
    return value is not None and math.isfinite(value)


def decimal(value: float | None, digits: int) -> str:
    """With a fixed number of digits behind the point."""
    return f"{value:,.{digits}f}" if known(value) else ABSENT


def count(value: float | None) -> str:
    """A whole number."""
    return decimal(value, 0)


def percent(share: float | None) -> str:
    """Of a share in [0, 1], with more digits near both ends, so that little is not nothing."""
    if not known(share):
        return ABSENT
    if share in (0, 1):
        return f"{share:.0%}"
    digits = 1 if 0.001 <= share <= 0.999 else 2 if 0.0001 <= share <= 0.9999 else 4
    return f"{share:.{digits}%}"


def seconds(value: float | None) -> str:
    """Below a tenth of a second in ms."""
    if not known(value):
        return ABSENT
    if abs(value) < 0.1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.2f} s" if abs(value) < 10 else f"{value:,.0f} s"


def size(bytes_: float | None) -> str:
    """In decimal units."""
    if not known(bytes_):
        return ABSENT
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes_ >= one:
            return f"{bytes_ / one:.1f} {unit}"
    return f"{bytes_:.0f} B"


def interval(interval_s: float | None) -> str:
    """An interval as one says it: 10 min, 5 h, 7 d; None is never."""
    if interval_s is None:
        return "never"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if interval_s >= length and interval_s % length == 0:
            return f"{interval_s / length:g} {unit}"
    return f"{interval_s:g} s"
