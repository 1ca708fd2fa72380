"""From integers to the float32 columns of a view. Whoever has the integers, gets the same bits.

``Windows`` is what an interpreter must know about n rows: the monoid values of a slot over a window, and the
newest events. Two provide it: packed states (view_read) and the log itself (view_asof). The replay does
not use this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from services.contract.errors import InvalidInput
from services.contract.feature_view import FeatureView
from services.contract.view_aggregates import (
    Count,
    Decayed,
    Distinct,
    Elapsed,
    Feature,
    Instant,
    LastK,
    Max,
    Mean,
    Min,
    Ratio,
    Sum,
)
from services.contract.view_events import FIELDS, Select
from services.contract.view_math import DAY_US, Floats, day_sine, ln
from services.contract.view_plan import NONE_US, Plan
from services.contract.view_registers import estimate

DECAY_UNIT = 1 << 24
MICROS = 1_000_000

Bools = NDArray[np.bool_]


def edge_of(view: FeatureView, at_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """[n]: what a row at ``at_us`` can see ends here: at once, or with the hop of a batch view."""
    return at_us // view.hop_us * view.hop_us if view.kind == "batch" else at_us


@dataclass(frozen=True)
class Newest:
    """The newest events of n rows, newest first: [n, k] each; ``valid`` places come before the others."""

    valid: Bools
    us: NDArray[np.int64]
    values: Mapping[str, NDArray[np.uint64]]


def newest_of(
    us: NDArray[np.int64],
    values: Mapping[str, NDArray],
    at_us: NDArray[np.int64],
    since_us: NDArray[np.int64] | None,
    k: int,
) -> Newest:
    """At most ``k`` of the kept events [n, keep] with since_us <= us < at_us. They stand newest first, with
    NONE_US where there is none."""
    # What overtook the request leads, what is too old ends.
    lead = (us >= at_us[:, None]).sum(axis=1)
    columns = lead[:, None] + np.arange(k)
    rows = np.arange(len(us))[:, None]
    inside = columns < us.shape[1]
    columns = np.minimum(columns, us.shape[1] - 1)
    chosen = us[rows, columns]
    valid = inside & (chosen != NONE_US)
    if since_us is not None:
        valid &= chosen >= since_us[:, None]
    return Newest(valid, chosen, {name: column[rows, columns] for name, column in values.items()})


class Windows(Protocol):
    """``hops`` 0 = all time."""

    missing: Bools

    def total(self, slot: int, hops: int) -> NDArray:
        """[n] int64, or [n, registers] uint8."""

    def decayed(self, slot: int, hops: int, weights: NDArray[np.int64]) -> NDArray[np.int64]:
        """[n]: the sum of count x weights[age of the tile in hops]."""

    def newest(self, recent: int, hops: int, k: int) -> Newest:
        """At most k of a recent list."""


@dataclass(frozen=True)
class Values:
    """values [n, features] float32; missing [n] uint8: 1 where every value is the default."""

    values: NDArray[np.float32]
    missing: NDArray[np.uint8]


@lru_cache(maxsize=256)
def decay_weights(half_life_us: int, hop_us: int, hops: int) -> NDArray[np.int64]:
    """round(DECAY_UNIT x 2^(-age / half-life)) for ages 0 .. hops, by decimal arithmetic."""
    with localcontext() as context:
        context.prec = 40
        step = -Decimal(hop_us) / Decimal(half_life_us)
        weights = [
            int((Decimal(2) ** (step * age) * DECAY_UNIT).to_integral_value()) for age in range(hops + 1)
        ]
    table = np.array(weights, np.int64)
    table.flags.writeable = False
    return table


@dataclass(frozen=True)
class _Scales:
    """What is done to the values of a view's features, [features] or [features, 1] each."""

    # Which get 1 added and are not below, and of which the logarithm is taken.
    log1p: NDArray[np.intp]
    logarithm: NDArray[np.intp]
    divide: Floats
    limit: Floats
    default: NDArray[np.float32]


@lru_cache(maxsize=256)
def _scales(view: FeatureView) -> _Scales:
    features = view.features
    log1p = [feature.scale == "log1p" for feature in features]
    lift = [isinstance(f.aggregate, Ratio) and f.aggregate.read == "lift" for f in features]
    limit = [np.inf if feature.limit is None else feature.limit for feature in features]
    return _Scales(
        np.flatnonzero(log1p),
        np.flatnonzero(np.logical_or(log1p, lift)),
        np.array([[feature.divide] for feature in features], np.float64),
        np.array([[one] for one in limit], np.float64),
        np.array([[feature.default] for feature in features], np.float32),
    )


def finish(
    plan: Plan, windows: Windows, at_us: NDArray[np.int64], candidate: Mapping[str, NDArray]
) -> Values:
    """All features of n rows at event times ``at_us`` [n]; ``candidate``: its fields, [n] each, for
    ``plan.view.operands``. One entity (n = 1) may meet m candidates: m rows. InvalidInput when an operand is
    not there."""
    view = plan.view
    for name in view.operands:
        if name not in candidate:
            raise InvalidInput.one(
                "candidate", ", ".join(candidate) or "none", f"with {name} for {view.name}"
            )
    rows = max([len(at_us), *(len(candidate[name]) for name in view.operands)]) if len(at_us) else 0
    values = np.empty((len(view.features), rows), np.float64)
    known = np.empty((len(view.features), rows), bool)
    for index, feature in enumerate(view.features):
        given = _Rows(feature, plan.uses[index], plan, windows, at_us, candidate)
        values[index], known[index] = _VALUES[type(feature.aggregate)](given, feature.aggregate)
    known &= ~windows.missing
    # float32 first: the default is said as it stands.
    matrix = np.where(known, _scaled(view, values), _scales(view).default)
    missing = np.broadcast_to(windows.missing, rows).astype(np.uint8)
    return Values(np.ascontiguousarray(matrix.T), missing)


def instant(plan: Plan, at_us: NDArray[np.int64]) -> Values:
    """All features of an instant view."""
    values = np.empty((len(plan.view.features), len(at_us)), np.float64)
    for index, feature in enumerate(plan.view.features):
        assert isinstance(feature.aggregate, Instant)
        values[index] = day_sine(at_us, DAY_US // 4 if feature.aggregate.function == "day_cos" else 0)
    matrix = _scaled(plan.view, values)
    return Values(np.ascontiguousarray(matrix.T), np.zeros(len(at_us), np.uint8))


def _scaled(view: FeatureView, values: Floats) -> NDArray[np.float32]:
    """[features, n]; all logarithms at once. Of a lift, the value is that of which the logarithm is taken."""
    scales = _scales(view)
    if len(scales.log1p):
        values[scales.log1p] = 1.0 + np.maximum(values[scales.log1p], 0.0)
    if len(scales.logarithm):
        values[scales.logarithm] = ln(values[scales.logarithm])
    values /= scales.divide
    return np.clip(values, -scales.limit, scales.limit, out=values).astype(np.float32)


@dataclass(frozen=True)
class _Rows:
    """What the value of one feature is computed from."""

    feature: Feature
    uses: tuple[int, ...]
    plan: Plan
    windows: Windows
    at_us: NDArray[np.int64]
    candidate: Mapping[str, NDArray]

    @property
    def hops(self) -> int:
        return self.plan.view.hops(self.feature)

    def totals(self) -> list[NDArray]:
        return [self.windows.total(slot, self.hops) for slot in self.uses]

    def seconds_since(self, us: NDArray[np.int64], known: Bools) -> Floats:
        # What is not known may be any integer: no difference is taken of it.
        return (self.at_us - np.where(known, us, self.at_us)) / float(MICROS)


# A value, and whether there is one (else the default stands), per row.
_Known = tuple[Floats, Bools]


def _every(value: NDArray) -> _Known:
    return value.astype(np.float64), np.ones(len(value), bool)


def _scale(events: Select, name: str) -> int:
    return FIELDS[events.kind][name].scale


def _extreme(rows: _Rows, a: Min | Max) -> _Known:
    (found,) = rows.totals()
    return found / float(_scale(a.events, a.field)), found != rows.plan.slots[rows.uses[0]].identity


def _mean(rows: _Rows, a: Mean) -> _Known:
    total, count = rows.totals()
    return total / (np.maximum(count, 1) * _scale(a.events, a.field)), count > 0


def _elapsed(rows: _Rows, a: Elapsed) -> _Known:
    (found,) = rows.totals()
    known = found != rows.plan.slots[rows.uses[0]].identity
    return rows.seconds_since(found, known), known


def _decayed(rows: _Rows, a: Decayed) -> _Known:
    weights = decay_weights(a.half_life_us, rows.plan.view.hop_us, rows.hops)
    return _every(rows.windows.decayed(rows.uses[0], rows.hops, weights) / float(DECAY_UNIT))


def _ratio(rows: _Rows, a: Ratio) -> _Known:
    events, hits = (count.astype(np.float64) for count in rows.totals())
    p, s = float(a.prior), float(a.strength)
    if a.read == "rate":
        # A hit may be there before its event.
        return _every((hits + s * p) / (np.maximum(events, hits) + s))
    odds = (hits + s * p) / (np.maximum(events - hits, 0.0) + s * (1.0 - p))
    return _every(odds * ((1.0 - p) / p))


def _last(rows: _Rows, a: LastK) -> _Known:
    newest = rows.windows.newest(rows.uses[0], rows.hops, a.k)
    count = newest.valid.sum(axis=1)
    some = count > 0
    if a.read in ("count", "any"):
        return _every(count if a.read == "count" else some)
    if a.read == "seconds":
        return rows.seconds_since(newest.us[:, 0], some), some
    stored = newest.values[a.field]
    if a.read == "value":
        return stored[:, 0].view(np.int64) / float(_scale(a.events, a.field)), some
    if a.read == "value_age":
        return rows.seconds_since(stored[:, 0].view(np.int64), some), some
    same = newest.valid & (stored == rows.candidate[a.field].astype(np.uint64)[:, None])
    return _every(_matched(a.read, same, count))


def _matched(read: str, same: Bools, count: NDArray) -> NDArray:
    share: NDArray = same.sum(axis=1) / np.maximum(count, 1)
    return {"share_of": share, "newest_is": same[:, 0], "contains": share > 0}[read]


_VALUES: dict[type, Callable[[_Rows, Any], _Known]] = {
    Count: lambda rows, a: _every(rows.totals()[0]),
    Sum: lambda rows, a: _every(rows.totals()[0] / float(_scale(a.events, a.field))),
    Min: _extreme,
    Max: _extreme,
    Mean: _mean,
    Distinct: lambda rows, a: _every(estimate(rows.totals()[0])),
    Elapsed: _elapsed,
    Decayed: _decayed,
    Ratio: _ratio,
    LastK: _last,
}
