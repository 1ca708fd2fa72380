"""Small charts as inline SVG. Pure: numbers in, markup out; colours are classes that the page defines.

All are 380 units wide, a phone's width, so that text is readable at its size and charts need no zoom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 380
_LABEL = 104
_VALUE = 64
_LEFT, _RIGHT = _LABEL, WIDTH - _VALUE
_ROW = 24


@dataclass(frozen=True)
class Bar:
    """One bar: ``text`` stands behind it, ``colour`` is a class of the page."""

    label: str
    value: float
    text: str
    colour: str = "c0"


@dataclass(frozen=True)
class Range:
    """A value between two others."""

    label: str
    low: float
    middle: float
    high: float
    text: str
    colour: str = "c0"


@dataclass(frozen=True)
class Point:
    """A point of a line; ``label`` and ``note`` stand below it, ``text`` above."""

    label: str
    note: str
    value: float
    text: str


def bars(title: str, rows: Sequence[Bar], most: float | None = None) -> str:
    """Horizontal bars from 0 to ``most`` (default: the largest value)."""
    top = most or max([row.value for row in rows], default=0) or 1
    parts = []
    for index, row in enumerate(rows):
        y = index * _ROW
        length = number((_RIGHT - _LEFT) * min(1.0, max(0.0, row.value / top)))
        parts += [
            text(_LEFT - 6, y + 16, row.label, "end"),
            f'<rect class="track" x="{_LEFT}" y="{y + 5}" width="{_RIGHT - _LEFT}" height="14" rx="3"/>',
            f'<rect class="{row.colour}" x="{_LEFT}" y="{y + 5}" width="{length}" height="14" rx="3"/>',
            text(_RIGHT + 6, y + 16, row.text, "start", "value"),
        ]
    return svg(title, len(rows) * _ROW, parts)


def ranges(
    title: str,
    rows: Sequence[Range],
    low: float,
    high: float,
    ticks: Sequence[tuple[float, str]],
    *,
    log: bool = False,
) -> str:
    """A whisker from low to high with a dot at the middle, on one axis for all rows."""

    def x(value: float) -> float:
        start, stop, at = (math.log10(max(one, 1e-9)) if log else one for one in (low, high, value))
        share = (at - start) / (stop - start) if stop > start else 0.0
        return _LEFT + (_RIGHT - _LEFT) * min(1.0, max(0.0, share))

    height = len(rows) * _ROW
    parts = []
    for value, label in ticks:
        at = number(x(value))
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="0" y2="{height}"/>')
        parts.append(text(x(value), height + 14, label, "middle", "axis"))
    for index, row in enumerate(rows):
        y = index * _ROW + 12
        start, stop, middle = (number(x(one)) for one in (row.low, row.high, row.middle))
        parts += [
            text(_LEFT - 6, y + 4, row.label, "end"),
            f'<line class="{row.colour} whisker" x1="{start}" x2="{stop}" y1="{y}" y2="{y}"/>',
            f'<circle class="{row.colour}" cx="{middle}" cy="{y}" r="4.5"/>',
            text(_RIGHT + 6, y + 4, row.text, "start", "value"),
        ]
    return svg(title, height + 20, parts)


def line(title: str, points: Sequence[Point], colour: str = "c0") -> str:
    """Points in equal steps from left to right, from 0 up."""
    height, base, left, right = 190, 140, 44, WIDTH - 44
    top = max([point.value for point in points], default=0) or 1
    step = (right - left) / max(1, len(points) - 1)
    places = [
        (left + index * step, base - (base - 26) * max(0.0, point.value) / top)
        for index, point in enumerate(points)
    ]
    path = " ".join(f"{number(x)},{number(y)}" for x, y in places)
    parts = [
        f'<line class="grid" x1="{left - 20}" x2="{right + 20}" y1="{base}" y2="{base}"/>',
        f'<polyline class="{colour} path" points="{path}"/>',
    ]
    for (x, y), point in zip(places, points, strict=True):
        parts += [
            f'<circle class="{colour}" cx="{number(x)}" cy="{number(y)}" r="5"/>',
            text(x, y - 11, point.text, "middle", "value"),
            text(x, base + 20, point.label, "middle"),
            text(x, base + 37, point.note, "middle", "axis"),
        ]
    return svg(title, height, parts)


def figure(title: str, markup: str, keys: Sequence[tuple[str, str]]) -> str:
    """``markup`` between its title and a legend of ``keys``: (classes of the page, name)."""
    said = "".join(f'<span><i class="{classes}"></i>{escape(name)}</span>' for classes, name in keys)
    legend = f"<p class='legend'>{said}</p>" if said else ""
    return f"<figure><figcaption>{escape(title)}</figcaption>{markup}{legend}</figure>"


def svg(title: str, height: float, parts: Sequence[str]) -> str:
    """An image of ``parts``, WIDTH units wide; ``title`` is read out in its stead."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {number(height)}" role="img" aria-label="{escape(title, quote=True)}">'
        + "".join(parts)
        + "</svg>"
    )


def text(x: float, y: float, said: str, anchor: str, colour: str = "label") -> str:
    """A text at a place; ``anchor``: start, middle or end."""
    place = f'x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"'
    return f'<text class="{colour}" {place}>{escape(said)}</text>'


def number(value: float) -> str:
    """A place, to a tenth of a unit."""
    return f"{value:.1f}".rstrip("0").rstrip(".")
