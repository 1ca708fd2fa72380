"""Curves: what a thing costs at growing sizes, how fast that grows, and where two of them cross. Pure.

A point of a curve: its size under ``x``, and figures (median, min, max) or numbers by column.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import Figure, cell, spread

Point = dict[str, Any]
MIN_ROUNDS = 5


@dataclass(frozen=True)
class Curve:
    """``columns``: title by key of a point, in order. ``grows``: the columns whose growth is said."""

    title: str
    x: str
    columns: Mapping[str, str]
    grows: tuple[str, ...]


def timed(work: Callable[[], object], seconds: float, scale: float = 1e3) -> Figure:
    """Wall time of a call, in milliseconds: one unmeasured, then five or as many as fit into ``seconds``."""
    work()
    end, took = time.perf_counter() + seconds, []
    while len(took) < MIN_ROUNDS or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        took.append((time.perf_counter() - began) * scale)
    return spread(took, 4)


def _value(point: Point, column: str) -> float | None:
    found = point.get(column)
    return found["median"] if isinstance(found, Mapping) else found


def exponent(points: Sequence[Point], column: str) -> float | None:
    """e of cost ~ size^e over the last decade; None when it was measured once or costs nothing there."""
    known = [(one["x"], value) for one in points if one["x"] and (value := _value(one, column))]
    if not known:
        return None
    last_x, last = known[-1]
    x, first = next(one for one in known if one[0] >= last_x / 10)
    return None if x == last_x else round(math.log(last / first) / math.log(last_x / x), 2)


def crossover(points: Sequence[Point], one: str, other: str) -> float | None:
    """From which size on ``other`` is cheaper, for all that were measured, drawn straight between two on
    logarithmic axes; None: never."""
    gains = [
        (point["x"], math.log(a / b))
        for point in points
        if (a := _value(point, one)) and (b := _value(point, other))
    ]
    if not gains or gains[-1][1] <= 0:
        return None
    last_loss = max((place for place, (_, gain) in enumerate(gains) if gain <= 0), default=None)
    if last_loss is None:
        return float(gains[0][0])
    (x0, g0), (x1, g1) = gains[last_loss : last_loss + 2]
    return round(math.exp(math.log(x0) + math.log(x1 / x0) * -g0 / (g1 - g0)), -3)


def table(curve: Curve, points: Sequence[Point]) -> str:
    """Markdown: a line a size, and how it grows."""
    lines = [f"| {' | '.join([curve.x, *curve.columns.values()])} |", "|---" * (1 + len(curve.columns)) + "|"]
    for point in points:
        cells = [_cell(point.get(column)) for column in curve.columns]
        lines.append(f"| {' | '.join([format(point['x'], ','), *cells])} |")
    said = [
        f"{curve.columns[column]} as {curve.x}^{found:.2f}"
        for column in curve.grows
        if (found := exponent(points, column)) is not None
    ]
    grows = [f"Over the last tenfold: {', '.join(said)}."] if said else []
    return "\n".join([f"**{curve.title}**", "", *lines, "", *grows])


def _cell(found: Any) -> str:
    if found is None:
        return ""
    if isinstance(found, Mapping):
        return cell(found, 3 if found["median"] < 1 else 2 if found["median"] < 10 else 1)
    return f"{found:,.3f}" if isinstance(found, float) and found < 10 else f"{found:,.0f}"
