"""Which events made one value: the rules of feature_view, read off the log for a single row.

Shares nothing with the as-of join but the rules, so that what it names can be counted against the value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.contract.errors import InvalidInput
from services.contract.feature_view import SPARE, FeatureView
from services.contract.view_aggregates import Instant, LastK, Ratio
from services.contract.view_log import EventLog, Labels, Mode
from services.contract.view_registry import ViewColumn
from services.lake.point_in_time import PointInTime

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Explanation:
    """``value``, ``missing`` as the as-of join says them. ``entity``: the key fields' values. The window in
    event time, ``start_us`` None: all time. ``events``: places in the log, newest first."""

    value: float
    missing: bool
    entity: dict[str, int]
    start_us: int | None
    end_us: int
    events: Ints


def explain(point: PointInTime, column: ViewColumn) -> Explanation:
    """Of the one row of ``point``. InvalidInput: an instant
    feature, which no event makes."""
    view = column.view
    if isinstance(column.feature.aggregate, Instant):
        raise InvalidInput.one("feature", column.name, "one made of events: this one is the time of day")
    found = point.found([column])
    labels = point.labels(view)
    log, at_us = point.log, int(point.rows.at_us[0])
    there = _there(view, log, labels, point.mode, point.lag_us)
    start_us, end_us = _window(view, column, log.occurred_us[there], at_us)
    missing = bool(found.missing[0, 0])
    there = there[:0] if missing else _in_window(view, column, log, there, (start_us, end_us))
    newest_first = np.lexsort((log.sequence[there], log.event_hash[there], log.occurred_us[there]))[::-1]
    return Explanation(
        float(found.values[0, 0]),
        missing,
        {name: int(labels.fields[name][0]) for name in view.key},
        start_us,
        end_us,
        there[newest_first],
    )


def _there(view: FeatureView, log: EventLog, labels: Labels, mode: Mode, lag_us: int) -> Ints:
    """S of the row's entity."""
    taken = log.takes(view)
    for name in view.key:
        taken &= log.field(name) == labels.fields[name][0]
    if mode == "ideal":
        taken &= log.occurred_us < labels.at_us[0]
    else:
        assert labels.wall_us is not None
        taken &= log.appended_us + lag_us < labels.wall_us[0]
    return np.flatnonzero(taken)


def _window(view: FeatureView, column: ViewColumn, times: Ints, at_us: int) -> tuple[int | None, int]:
    hop, hops = at_us // view.hop_us, view.hops(column.feature)
    overtaken = bool(len(times)) and int(times.max()) >= at_us
    whole_hops = overtaken and not isinstance(column.feature.aggregate, LastK)
    end_us = hop * view.hop_us if whole_hops or view.kind == "batch" else at_us
    return ((hop - hops) * view.hop_us if hops else None), end_us


def _in_window(
    view: FeatureView, column: ViewColumn, log: EventLog, there: Ints, window: tuple[int | None, int]
) -> Ints:
    aggregate = column.feature.aggregate
    assert not isinstance(aggregate, Instant)
    chosen = log.selected(aggregate.events)
    if isinstance(aggregate, Ratio):
        chosen |= log.selected(aggregate.hits)
    there = there[chosen[there]]
    if isinstance(aggregate, LastK):
        there = _newest(view, aggregate, log, there)
    start_us, end_us = window
    times = log.occurred_us[there]
    inside = there[(times < end_us) & (times >= start_us if start_us is not None else True)]
    return inside[: aggregate.k] if isinstance(aggregate, LastK) else inside


def _newest(view: FeatureView, last: LastK, log: EventLog, there: Ints) -> Ints:
    """Of a list of this kind, newest first; a repeated entry once."""
    k = max(
        f.aggregate.k
        for f in view.features
        if isinstance(f.aggregate, LastK)
        and (f.aggregate.events, f.aggregate.fields) == (last.events, last.fields)
    )
    columns = [log.occurred_us, log.event_hash, *(log.field(name).view(np.uint64) for name in last.fields)]
    entries = {tuple(column[row].item() for column in columns): row for row in there.tolist()}
    return np.array([entries[entry] for entry in sorted(entries, reverse=True)[: k + SPARE]], np.int64)
