"""Lines over an axis as inline SVG with a legend: time, or intervals on a log axis. Pure.

380 units wide, a phone's width, as charts are. Each point is drawn with its numbers as a title, so that
pointing at it shows them. What is None or NaN is a gap; a plot without a point says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from local.report.charts import WIDTH, figure, number, svg, text
from local.report.numbers import known

_LEFT, _RIGHT, _TOP, _BASE = 48, WIDTH - 14, 24, 200
_HEIGHT = _BASE + 36
_TICKS = 7
# Of an axis whose points are all in one place.
_ALONE = 0.05
# Closer to each other than this, in parts of that, they are: no digits are left to tell them apart.
_EQUAL = 1e-6
_CAP = 3.0


@dataclass(frozen=True)
class Series:
    """A line: ``x``, ``y`` and ``error`` (half a bar, None = no bar) of the same length; ``colour`` is a
    class of the page."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    error: Sequence[float | None] = ()
    colour: str = "c0"
    dashed: bool = False

    def __post_init__(self) -> None:
        """Columns of other lengths are a mistake of the caller."""
        if len(self.x) != len(self.y) or (self.error and len(self.error) != len(self.x)):
            raise ValueError(f"{self.name}: {len(self.x)} x, {len(self.y)} y, {len(self.error)} errors")

    def points(self) -> list[tuple[float, float, float] | None]:
        """(x, y, error) in order; None is a gap."""
        errors = self.error or [None] * len(self.x)
        return [
            (x, y, e if known(e) else 0.0) if known(y) else None
            for x, y, e in zip(self.x, self.y, errors, strict=True)
        ]


@dataclass(frozen=True)
class Axis:
    """``label`` with the unit. ``low`` and ``high``: at least this far. ``ticks``: (value, text) instead of
    round numbers. On a log axis values are above 0."""

    label: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    ticks: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Mark:
    """A moment: a line from top to bottom, ``label`` above it."""

    x: float
    label: str
    colour: str = "c0"


class _Scale:
    """From values to places."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, stop: float) -> None:
        bounds = [*values, *(one for one in (axis.low, axis.high) if one is not None)]
        self._log = axis.log
        if axis.log:
            bounds = [one for one in bounds if one > 0]
        low, high = (min(bounds), max(bounds)) if bounds else (0.0, 1.0)
        if axis.log:
            low, high = (low, high) if low < high else (low / 2, high * 2)
            self.ticks = list(axis.ticks) or [(one, _said(one, one)) for one in _decades(low, high)]
        else:
            spread = (max(abs(low), abs(high)) or 1.0) * _ALONE
            alone = high - low < spread * _EQUAL
            low, high = (low - spread, high + spread) if alone else (low, high)
            self.ticks = list(axis.ticks) or list(round_ticks(low, high))
            if not axis.ticks:
                # Out to the next round number where a bound is not asked for, so that no line hides the edge.
                step = self.ticks[1][0] - self.ticks[0][0]
                low = low if low == axis.low else min(low, math.floor(low / step) * step)
                high = high if high == axis.high else max(high, math.ceil(high / step) * step)
                self.ticks = list(round_ticks(low, high))
        self._low, self._high = self._of(low), self._of(high)
        self._start, self._stop = start, stop

    def _of(self, value: float) -> float:
        return math.log10(value) if self._log else value

    def __call__(self, value: float) -> float:
        if self._log and value <= 0:
            return self._start
        share = (self._of(value) - self._low) / (self._high - self._low)
        return self._start + (self._stop - self._start) * min(1.0, max(0.0, share))


def plot(title: str, series: Sequence[Series], x: Axis, y: Axis, marks: Sequence[Mark] = ()) -> str:
    """A figure with its title, axes and legend."""
    found = [point for one in series for point in one.points() if point is not None]
    if x.log:
        found = [point for point in found if point[0] > 0]
    if not found:
        return figure(title, "<p class='text'>Nothing to show: no point of it was measured.</p>", ())
    across = _Scale(x, [point[0] for point in found], _LEFT, _RIGHT)
    ends = [end for _, value, error in found for end in (value - error, value + error)]
    up = _Scale(y, [one for one in ends if one > 0] if y.log else ends, _BASE, _TOP)
    parts = [*_axes(x, y, across, up), *marked(marks, across, _TOP, _BASE)]
    for one in series:
        parts += _drawn(one, across, up, x, y)
    keys = [(f"{one.colour} key{' dashed' if one.dashed else ''}", one.name) for one in series]
    return figure(title, svg(title, _HEIGHT, parts), keys)


def marked(
    marks: Sequence[Mark], place: Callable[[float], float], top: float, bottom: float
) -> Iterator[str]:
    """The lines of moments, from ``top`` to ``bottom``; ``place``: where on the image a value stands."""
    for mark in marks:
        at = number(place(mark.x))
        yield f'<line class="{mark.colour} mark" x1="{at}" x2="{at}" y1="{top}" y2="{bottom}"/>'
        yield text(place(mark.x), top - 3, mark.label, "middle", "axis")


def round_ticks(low: float, high: float) -> Iterator[tuple[float, str]]:
    """Four to eight round numbers from ``low`` to ``high``, both included when they are round."""
    step = nice((high - low) / _TICKS)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    for place in range(first, last + 1):
        yield place * step, _said(place * step, step)


def few_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Of them as many as have room below ranges: three to five."""
    ticks = list(round_ticks(low, high))
    return ticks[:: 1 + len(ticks) // 6]


def nice(step: float) -> float:
    """The next 1, 2 or 5 times a power of ten from ``step`` on."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * one for one in (1, 2, 5, 10) if power * one >= step * (1 - 1e-9))


# -- parts -------------------------------------------------------------------------------------------------


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    few = len(powers) <= 3
    steps = [one * 10.0**power for power in powers for one in ((1, 2, 5) if few else (1,))]
    inside = [one for one in steps if low * (1 - 1e-9) <= one <= high * (1 + 1e-9)]
    return inside or [low, high]


def _said(value: float, step: float) -> str:
    if abs(value) >= 10_000 and step >= 1_000:
        return f"{value / 1000:,.0f}k"
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{digits}f}"


def _axes(x: Axis, y: Axis, across: _Scale, up: _Scale) -> Iterator[str]:
    for value, said in up.ticks:
        at = number(up(value))
        yield f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{at}" y2="{at}"/>'
        yield text(_LEFT - 6, up(value) + 4, said, "end", "axis")
    yield f'<line class="edge" x1="{_LEFT}" x2="{_RIGHT}" y1="{_BASE}" y2="{_BASE}"/>'
    for value, said in across.ticks:
        at = number(across(value))
        yield f'<line class="edge" x1="{at}" x2="{at}" y1="{_BASE}" y2="{_BASE + 4}"/>'
        yield text(across(value), _BASE + 16, said, "middle", "axis")
    yield text(_RIGHT, _BASE + 31, x.label, "end", "axis")
    yield text(4, 11, y.label, "start", "axis")


def _drawn(one: Series, across: _Scale, up: _Scale, x: Axis, y: Axis) -> Iterator[str]:
    points = one.points()
    for stretch in _stretches(points):
        path = " ".join(f"{number(across(px))},{number(up(py))}" for px, py, _ in stretch)
        dashed = " dashed" if one.dashed else ""
        yield f'<polyline class="{one.colour} path{dashed}" points="{path}"/>'
    for point in points:
        if point is None:
            continue
        px, py, error = point
        at, place = number(across(px)), number(up(py))
        if error:
            left, right = number(across(px) - _CAP), number(across(px) + _CAP)
            low, high = number(up(py - error)), number(up(py + error))
            shape = f"M{left},{low}H{right}M{left},{high}H{right}M{at},{low}V{high}"
            yield f'<path class="{one.colour} bar" d="{shape}"/>'
        spread = f" ± {error:.3g}" if error else ""
        where = next((said for value, said in x.ticks if value == px), f"{px:.6g}")
        said = escape(f"{one.name}, {x.label} {where}: {py:.6g}{spread} {y.label}")
        yield f'<circle class="{one.colour}" cx="{at}" cy="{place}" r="2.5"><title>{said}</title></circle>'


def _stretches(
    points: Sequence[tuple[float, float, float] | None],
) -> Iterator[list[tuple[float, float, float]]]:
    stretch: list[tuple[float, float, float]] = []
    for point in (*points, None):
        if point is not None:
            stretch.append(point)
        elif stretch:
            if len(stretch) > 1:
                yield stretch
            stretch = []
