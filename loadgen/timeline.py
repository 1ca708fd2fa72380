"""When which scenario is on, and what follows from it for the world's clocks. Pure, in world seconds.

A scenario that is switched is an open span from now on, one of a schedule a span that is known before. Where
spans of one scenario overlap it is on once. Everything is a function of the spans: the same switches at the
same world times give the same world.

Some processes of the world run faster while a scenario is on (tastes turn, items are born). Each has a time
of its own, a piecewise linear function of world time (``Pace``): a change of speed never makes it jump.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadgen.scenarios import PEAK_ARRIVALS, SCENARIOS, Scenario, scenario
from services.contract.errors import InvalidInput

Times = NDArray[np.float64]


@dataclass
class Span:
    """[from_s, until_s) in world seconds; an open one has ``until_s`` infinite."""

    scenario: Scenario
    from_s: float
    until_s: float = math.inf


class Pace:
    """Own time of a process over world time. Through the origin; before the first change at ``speeds[0]``."""

    def __init__(self, changes_s: list[float], speeds: list[float]) -> None:
        """Changes (rising, not negative) and the speeds before the first and from each on."""
        self._at = np.array([0.0, *changes_s])
        self._speed = np.array(speeds)
        self._own = np.concatenate(([0.0], np.cumsum(np.diff(self._at) * self._speed[:-1])))

    def own(self, t_s: Times) -> Times:
        """Own time at world times."""
        if len(self._at) == 1:
            return t_s * self._speed[0]
        piece = np.maximum(np.searchsorted(self._at, t_s, side="right") - 1, 0)
        return self._own[piece] + self._speed[piece] * (t_s - self._at[piece])

    def world(self, own_s: Times) -> Times:
        """World time at own times; of a pace that never stands still."""
        if len(self._at) == 1:
            return own_s / self._speed[0]
        piece = np.maximum(np.searchsorted(self._own, own_s, side="right") - 1, 0)
        return self._at[piece] + (own_s - self._own[piece]) / self._speed[piece]


class Timeline:
    """The spans of one run, and their consequences."""

    def __init__(self, spans: tuple[Span, ...] = ()) -> None:
        self.spans = list(spans)

    def switch(self, name: str, on: bool, now_s: float) -> bool:
        """Begins or ends a scenario now; whether that changed anything. InvalidInput: an unknown name.

        Ending it cuts what is on; a later span of the schedule still comes."""
        wanted = scenario(name)
        current = [span for span in self.spans if span.scenario is wanted and covers(span, now_s)]
        if on == bool(current):
            return False
        if on:
            self.spans.append(Span(wanted, now_s))
        for span in current:
            span.until_s = now_s
        return True

    def on_at(self, t_s: float) -> list[Scenario]:
        """What is on at a moment, in the order of SCENARIOS."""
        names = {span.scenario.name for span in self.spans if covers(span, t_s)}
        return [one for name, one in SCENARIOS.items() if name in names]

    def since(self, name: str, t_s: float) -> float | None:
        """Since when a scenario is on at a moment; None when it is not."""
        return min(
            (span.from_s for span in self.spans if span.scenario.name == name and covers(span, t_s)),
            default=None,
        )

    def arrivals_factor(self, t_s: float) -> float:
        """How many times the usual arrivals come at a moment."""
        return min(math.prod(one.arrivals for one in self.on_at(t_s)), PEAK_ARRIVALS)

    def shifts(self, items: NDArray[np.int64], categories: NDArray[np.uint8], t_s: Times) -> NDArray | float:
        """What is added to the click logit of items [n] of categories [n] at times [n or 1]."""
        total: NDArray | float = 0.0
        for one in SCENARIOS.values():
            spans = [span for span in self.spans if span.scenario is one] if one.shifts else []
            if not spans:
                continue
            on = np.logical_or.reduce([(t_s >= span.from_s) & (t_s < span.until_s) for span in spans])
            for shift in one.shifts:
                touched = on
                if shift.categories:
                    touched = touched & np.isin(categories, shift.categories)
                if shift.item >= 0:
                    touched = touched & (items == shift.item)
                total = total + shift.logit * touched
        return total

    def pace(self, speed: float, factor: Callable[[Scenario], float]) -> Pace:
        """Of a process that usually runs at ``speed`` and is ``factor`` times as fast while a scenario is
        on."""
        bounds = sorted(
            {
                bound
                for span in self.spans
                if factor(span.scenario) != 1
                for bound in (span.from_s, span.until_s)
            }
        )
        changes = [bound for bound in bounds if 0 <= bound < math.inf]
        speeds = [speed * math.prod(map(factor, self.on_at(at))) for at in changes]
        return Pace(changes, [speed, *speeds])


def covers(span: Span, t_s: float) -> bool:
    """Whether a span is on at a moment."""
    return span.from_s <= t_s < span.until_s


def schedule(text: str, start_s: float) -> tuple[Span, ...]:
    """Spans of ``NAME@FROM-UNTIL,NAME@FROM``, seconds after ``start_s``; InvalidInput names the bad part."""
    return tuple(_span(part, start_s) for part in text.split(",") if part)


def _span(part: str, start_s: float) -> Span:
    name, _, when = part.partition("@")
    begin, dash, end = when.partition("-")
    try:
        from_s, until_s = float(begin), float(end) if dash else math.inf
    except ValueError:
        from_s, until_s = math.nan, math.nan
    if not 0 <= from_s < until_s:
        allowed = "NAME@FROM or NAME@FROM-UNTIL, seconds since the start, 0 <= FROM < UNTIL"
        raise InvalidInput.one("schedule", part[:64], allowed)
    return Span(scenario(name), start_s + from_s, start_s + until_s)
