"""What the figures of every benchmark are made of. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

Figure = dict[str, float]


def figure(values: Sequence[float]) -> Figure:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def spread(values: Sequence[float], digits: int = 3) -> Figure:
    """Median and range, rounded."""
    return {name: round(value, digits) for name, value in figure(values).items()}


def cell(one: Mapping[str, float] | None, digits: int, unit: str = "") -> str:
    """Median and range in a table; empty for what was not measured."""
    if one is None:
        return ""
    low, high = f"{one['min']:.{digits}f}", f"{one['max']:.{digits}f}"
    return f"{one['median']:.{digits}f}{unit} ({low} to {high})"
