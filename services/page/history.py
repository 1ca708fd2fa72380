"""The points of the page's lines: a ring of looks. Pure.

A line of which nothing was heard in a look has no value in it: the page shows a gap, never an old number.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """One look: when (wall, ms), what each line's value was, and which scenarios were on."""

    at_ms: int
    values: Mapping[str, float]
    on: tuple[str, ...] = ()

    def said(self) -> dict[str, object]:
        """For the page."""
        return {"t": self.at_ms, "v": dict(self.values), "on": list(self.on)}


class History:
    """The newest ``points`` looks of at most ``lines`` lines each; ``left_out`` counts values beyond that."""

    def __init__(self, points: int, lines: int) -> None:
        self._ring: deque[Point] = deque(maxlen=points)
        self._lines = lines
        self.left_out = 0
        # How many were ever added: the number of the next one.
        self.end = 0

    def add(self, at_ms: int, values: Mapping[str, float | None], on: tuple[str, ...]) -> Point:
        """Keeps what is a number."""
        known = {
            name: _short(value)
            for name, value in values.items()
            if value is not None and math.isfinite(value)
        }
        kept = dict(list(known.items())[: self._lines])
        self.left_out += len(known) - len(kept)
        point = Point(at_ms, kept, on)
        self._ring.append(point)
        self.end += 1
        return point

    def since(self, number: int) -> list[Point]:
        """The points from a number on that are still there."""
        first = self.end - len(self._ring)
        return list(self._ring)[max(0, number - first) :]


def _short(value: float) -> float:
    """Five digits say all that a line can show."""
    return float(f"{value:.5g}")
