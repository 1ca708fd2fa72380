"""The as-of join: for each label, what a view says of its entity at its event time, from the log alone.

Every label gets a row, also when nothing happened before it. All labels at once: a window is a range of the
log ordered by (entity, event time), whose ends are binary searches; counts and sums are differences of
running sums, minima and maxima two lookups in a table; only decays, distinct counts and what arrived out of
order are walked through event by event. No tile is made here, which is what makes it a check on those who do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from services.contract.errors import InvalidInput
from services.contract.feature_view import FeatureView
from services.contract.view_asof_newest import in_tie_order, newest_places
from services.contract.view_asof_order import Ints, ordered
from services.contract.view_asof_reduce import expand, extremes, prefix_sums
from services.contract.view_log import EventLog, Labels, Mode
from services.contract.view_plan import NONE_US, Plan, plan_of
from services.contract.view_registers import register_columns
from services.contract.view_values import Newest, Values, edge_of, finish, instant, newest_of

_UFUNC: dict[str, np.ufunc] = {"add": np.add, "min": np.minimum, "max": np.maximum}


def asof(view: FeatureView, log: EventLog, labels: Labels, mode: Mode = "ideal", lag_us: int = 0) -> Values:
    """The features of each label, in order: values [n, features], missing [n].

    ``lag_us``: from append to being served, for ``as_served``. InvalidInput: the columns that the view needs
    are not there.
    """
    labels.check(view, mode)
    if lag_us < 0:
        raise InvalidInput.one("lag_us", lag_us, "at least 0")
    plan = plan_of(view)
    if view.kind == "instant":
        return instant(plan, labels.at_us)
    lag = lag_us if mode == "as_served" else None
    # Labels in the order of the log: their searches then walk through it once.
    order = np.lexsort((labels.at_us, *(labels.fields[name] for name in view.key)))
    labels = labels.take(order)
    found = finish(plan, LogWindows(plan, log, labels, lag), labels.at_us, labels.fields)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return Values(found.values[back], found.missing[back])


class LogWindows:
    """``Windows`` (contract.view_values) over a log. ``lag_us`` None: ideal."""

    def __init__(self, plan: Plan, log: EventLog, labels: Labels, lag_us: int | None) -> None:
        self._plan, self._log = plan, log
        self._order = order = ordered(plan.view, log, labels, lag_us)
        hop_us = plan.view.hop_us
        self._at_us, self._hop = labels.at_us, labels.at_us // hop_us
        self._edge = edge_of(plan.view, labels.at_us)
        self._start = order.start()
        self._sure, self._there = order.presence(self._at_us)
        self._sure = np.maximum(self._sure, self._start)
        none = self._there <= self._start
        newest = order.us[np.maximum(self._there - 1, 0)] if len(order.us) else self._at_us
        self.missing = none | (newest // hop_us - self._hop > plan.view.slack_hops)
        # As feature_view, rule 3.
        edge = np.where(newest < self._at_us, self._edge, self._hop * hop_us)
        whole = lag_us is None and plan.view.kind == "streaming"
        self._end = self._there if whole else order.before(edge)
        self._ranges: Callable[[int], tuple[Ints, Ints, Ints]] = cache(self._ranges_of)
        self._slot: Callable[[int], NDArray] = cache(self._slot_of)
        self._chosen: Callable[[int], NDArray] = cache(self._chosen_of)
        self._sums: Callable[[int], Ints] = cache(lambda slot: prefix_sums(self._slot(slot)))
        self._entries: Callable[[int], tuple[Ints, list[NDArray]]] = cache(self._entries_of)

    def _low(self, hops: int) -> Ints:
        """The first place of a window."""
        if not hops:
            return self._start
        return self._order.before((self._hop - hops) * self._plan.view.hop_us)

    def _slot_of(self, slot: int) -> NDArray:
        """What each ordered row gives to a slot: a bool for a count."""
        spec = self._plan.slots[slot]
        chosen = self._chosen(slot)
        if not spec.value:
            return chosen
        values = self._values(spec.value)
        return values if chosen.all() else np.where(chosen, values, spec.identity)

    def _values(self, name: str) -> NDArray:
        return self._order.us if name == "occurred_us" else self._log.field(name)[self._order.rows]

    def _chosen_of(self, slot: int) -> NDArray[np.bool_]:
        return self._log.selected(self._plan.slots[slot].events)[self._order.rows]

    def _ranges_of(self, hops: int) -> tuple[Ints, Ints, Ints]:
        """(low, middle, high): of a window, low to middle was there, middle to high has to be looked at."""
        low = self._low(hops)
        middle = np.maximum(low, np.minimum(self._end, self._sure))
        return low, middle, np.maximum(middle, np.minimum(self._end, self._there))

    def _walk(self, low: Ints, high: Ints, chosen: NDArray[np.bool_]) -> Iterator[tuple[Ints, Ints]]:
        """(label, place) of the chosen rows that were there, a bounded number at once."""
        places, count = np.flatnonzero(chosen), prefix_sums(chosen)
        for label, index in expand(count[low], count[high]):
            yield self._order.there(label, places[index])

    def total(self, slot: int, hops: int) -> NDArray:
        """As Windows."""
        spec = self._plan.slots[slot]
        low, middle, high = self._ranges(hops)
        if spec.registers:
            return self._registers(slot, low, high)
        values, ufunc = self._slot(slot), _UFUNC[spec.monoid]
        if spec.monoid == "add":
            sums = self._sums(slot)
            total = sums[middle] - sums[low]
        else:
            total = extremes(ufunc, spec.identity, values, low, middle)
        if (high > middle).any():
            for label, place in self._walk(middle, high, self._chosen(slot)):
                ufunc.at(total, label, values[place])
        return total

    def _registers(self, slot: int, low: Ints, high: Ints) -> NDArray:
        m = self._plan.slots[slot].registers
        index, rank = register_columns(self._values(self._plan.slots[slot].value), m)
        found = np.zeros(len(low) * m, np.uint8)
        for label, place in self._walk(low, high, self._chosen(slot)):
            np.maximum.at(found, label * m + index[place], rank[place])
        return found.reshape(-1, m)

    def decayed(self, slot: int, hops: int, weights: Ints) -> Ints:
        """As Windows."""
        low, _, high = self._ranges(hops)
        hop = self._order.us // self._plan.view.hop_us
        total = np.zeros(len(low), np.int64)
        for label, place in self._walk(low, high, self._chosen(slot)):
            np.add.at(total, label, weights[self._hop[label] - hop[place]])
        return total

    def newest(self, recent: int, hops: int, k: int) -> Newest:
        """As Windows."""
        spec = self._plan.recents[recent]
        us, values = self._entries(recent)
        since = (self._hop - hops) * self._plan.view.hop_us if hops else None
        return newest_of(us, dict(zip(spec.fields, values, strict=True)), self._edge, since, k)

    def _entries_of(self, recent: int) -> tuple[Ints, list[NDArray]]:
        spec = self._plan.recents[recent]
        order = self._order
        places = np.flatnonzero(self._log.selected(spec.events)[order.rows])
        columns = [self._log.event_hash, *(self._log.field(name).view(np.uint64) for name in spec.fields)]
        order = in_tie_order(order.part(places), columns)
        place, filled = newest_places(order, self._at_us, spec.keep)
        us = np.where(filled, _at(order.us, place), NONE_US)
        return us, [_at(column[order.rows], place) for column in columns[1:]]


def _at(column: NDArray, place: Ints) -> NDArray:
    return column[place] if len(column) else np.zeros(place.shape, column.dtype)
