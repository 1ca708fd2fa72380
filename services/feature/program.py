"""A feature set as numbers: which states a request reads, and the programs that the kernel runs over them.

States come in groups, whose records lie one after the other: of the request's own entity (REQUEST), per item
(ITEM: kept near), per category of the candidates (PER_CATEGORY), per candidate (PAIR: an item together with
a user or with a comparison; read each time). A program computes columns at one level: once, per item, per
category, or per candidate; all but those per category write into the answer's matrix (``direct``).
Comparisons of the user's events with the candidate's category are made once per category.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.contract.errors import InvalidInput
from services.contract.feature_view import FeatureView
from services.contract.redis_keys import view_prefix
from services.contract.view_aggregates import (
    MATCHING_READS,
    Decayed,
    Distinct,
    Feature,
    Instant,
    LastK,
    Ratio,
)
from services.contract.view_events import FIELDS
from services.contract.view_growth import MAX_VIEWS
from services.contract.view_plan import Plan, Recent, plan_of
from services.contract.view_registry import REQUEST_KEYS, FeatureSet, ViewColumn
from services.contract.view_values import decay_weights
from services.feature import kernel as k

REQUEST, ITEM, PER_CATEGORY, PAIR = range(4)
_OPERANDS = {"user_id": k.USER_ID, "item_id": k.ITEM_ID, "category": k.CATEGORY}
_OPS = {
    "Count": k.COUNT, "Sum": k.SUM, "Min": k.MIN, "Max": k.MAX, "Mean": k.MEAN, "Distinct": k.DISTINCT,
    "Decayed": k.DECAYED, "rate": k.RATE, "lift": k.LIFT, "first": k.FIRST_EVENT, "last": k.LAST_EVENT,
    "any": k.ANY, "count": k.HOW_MANY, "value": k.VALUE, "seconds": k.SECONDS, "value_age": k.VALUE_AGE,
    "share_of": k.SHARE_OF, "newest_is": k.NEWEST_IS, "contains": k.CONTAINS, "day_sin": k.DAY_SIN,
    "day_cos": k.DAY_COS,
}  # fmt: skip


def group_of(view: FeatureView) -> int:
    """Which states of a view a request reads."""
    if REQUEST_KEYS.issuperset(view.key):
        return REQUEST
    if view.key == ("item_id",) and not view.operands:
        return ITEM
    if "item_id" in view.key or "item_id" in view.operands:
        return PAIR
    return PER_CATEGORY


@dataclass(frozen=True)
class Stored:
    """A view's states: what their keys in Redis begin with, their bytes, and where in a record of the view's
    group they begin."""

    view: FeatureView
    prefix: bytes
    size: int
    start: int


@dataclass(frozen=True)
class Program:
    """``columns[i]``: which column of the level's matrix column i of the answer's matrix is. ``packed``: for
    the kernel: views, ints, floats, weights."""

    columns: NDArray[np.int64]
    packed: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]

    @property
    def width(self) -> int:
        """Columns."""
        return len(self.columns)


class Layout:
    """How one feature set is read and computed. InvalidInput: no catalogue; more than MAX_VIEWS views."""

    def __init__(self, feature_set: FeatureSet) -> None:
        if len(feature_set.views) > MAX_VIEWS:
            raise InvalidInput.one("views", str(len(feature_set.views)), f"at most {MAX_VIEWS}")
        self.feature_set = feature_set
        self.catalogue = feature_set.catalogue
        stored = [view for view in feature_set.views if view.kind != "instant"]
        self.groups = tuple([view for view in stored if group_of(view) == group] for group in range(4))
        # Where in a record of its group a view's state begins.
        self.starts: dict[str, int] = {}
        self.sizes = tuple(self._lay(views) for views in self.groups)
        self.stored = tuple(
            [
                Stored(view, view_prefix(view), plan_of(view).layout.size, self.starts[view.name])
                for view in views
            ]
            for views in self.groups
        )
        levels: dict[str, list[tuple[int, ViewColumn]]] = {
            "request": [],
            "item": [],
            "category": [],
            "pair": [],
        }
        for place, column in enumerate(feature_set.request_columns):
            levels["request"].append((place, column))
        for place, column in enumerate(feature_set.candidate_columns):
            levels[_level(column)].append((place, column))
        self.request = self._program(levels["request"], direct=True)
        self.item = self._program(levels["item"], direct=True)
        self.category = self._program(levels["category"])
        self.pair = self._program(levels["pair"], direct=True)
        self.programs = (self.request.packed, self.category.packed, self.pair.packed)
        # As kernel.complete takes them.
        self.bits = (np.uint32(self.of_item), ~np.uint32(self.of_user))

    def _lay(self, views: list[FeatureView]) -> int:
        at = 0
        for view in views:
            self.starts[view.name] = at
            at += plan_of(view).layout.size
        return at

    @cached_property
    def of_user(self) -> int:
        """Bits of the views of which a request has one state."""
        return sum(1 << self.feature_set.views.index(view) for view in self.groups[REQUEST])

    @cached_property
    def of_item(self) -> int:
        """Bits of the views of an item alone."""
        return sum(1 << self.feature_set.views.index(view) for view in self.groups[ITEM])

    def _program(self, columns: list[tuple[int, ViewColumn]], direct: bool = False) -> Program:
        views: list[list[int]] = []
        ints: list[NDArray[np.int64]] = []
        floats: list[NDArray[np.float64]] = []
        weights: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        places: list[int] = []
        for index, view in enumerate(self.feature_set.views):
            mine = [(place, column) for place, column in columns if column.view is view]
            if not mine:
                continue
            begin = len(ints)
            for place, column in mine:
                numbers, real, table = _numbers(plan_of(view), column.index)
                numbers[k.COLUMN] = place if direct else len(ints)
                if len(table):
                    numbers[k.FIELD] = sum(map(len, weights))
                    weights.append(table)
                ints.append(numbers)
                floats.append(real)
                places.append(place)
            last = any(isinstance(column.feature.aggregate, LastK) for _, column in mine)
            fingerprint = 0 if view.kind == "instant" else plan_of(view).fingerprint
            views.append(
                [
                    group_of(view), self.starts.get(view.name, 0), view.hop_us, view.slack_hops, fingerprint,
                    view.kind == "instant", begin, len(ints), index, last, view.kind == "batch",
                ]
            )  # fmt: skip
        return Program(
            np.array(places, np.int64),
            (
                np.array(views, np.int64).reshape(-1, k.VIEW_INTS),
                np.array(ints, np.int64).reshape(-1, k.FEATURE_INTS),
                np.array(floats, np.float64).reshape(-1, k.FEATURE_FLOATS),
                np.concatenate(weights),
            ),
        )


def _level(column: ViewColumn) -> str:
    group, aggregate = group_of(column.view), column.feature.aggregate
    if group == ITEM:
        return "item"
    compares = isinstance(aggregate, LastK) and aggregate.read in MATCHING_READS and aggregate.field
    return "pair" if group == PAIR or compares == "item_id" else "category"


def _numbers(plan: Plan, index: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    feature = plan.view.features[index]
    ints, floats = np.zeros(k.FEATURE_INTS, np.int64), np.zeros(k.FEATURE_FLOATS)
    a: Any = feature.aggregate
    ints[k.OP] = _OPS[_word(feature)]
    ints[k.HOPS] = plan.view.hops(feature)
    ints[k.LOG1P] = feature.scale == "log1p"
    ints[k.LOG] = feature.scale == "log1p" or ints[k.OP] == k.LIFT
    floats[k.DIVIDE] = feature.divide
    floats[k.LIMIT] = np.inf if feature.limit is None else feature.limit
    floats[k.DEFAULT] = np.float32(feature.default)
    table = np.zeros(0, np.int64)
    if isinstance(a, Instant):
        return ints, floats, table
    field = getattr(a, "field", "")
    ints[k.SCALE] = FIELDS[a.events.kind][field].scale if field else 1
    if isinstance(a, LastK):
        _last(plan, index, ints, a)
        return ints, floats, table
    for first, slot in zip((k.A, k.B), plan.uses[index], strict=False):
        spec = plan.slots[slot]
        base = _offset(plan, f"base{slot}") if spec.has_base else -1
        ints[first : first + 4] = _offset(plan, f"tiles{slot}"), spec.tiles, spec.code == "q", base
    if isinstance(a, Distinct):
        ints[k.SIZE] = 1 << a.precision
    if isinstance(a, Decayed):
        table = decay_weights(a.half_life_us, plan.view.hop_us, int(ints[k.HOPS]))
    if isinstance(a, Ratio):
        p, s = float(a.prior), float(a.strength)
        floats[k.P1], floats[k.P2] = s * p, (s if a.read == "rate" else s * (1.0 - p))
        floats[k.P3] = (1.0 - p) / p
    return ints, floats, table


def _last(plan: Plan, index: int, ints: NDArray[np.int64], a: LastK) -> None:
    (at,) = plan.uses[index]
    recent: Recent = plan.recents[at]
    ints[k.A], ints[k.SIZE], ints[k.K] = _offset(plan, f"recent{at}_us"), recent.keep, a.k
    ints[k.EDGE_HOP] = plan.view.hop_us if plan.view.kind == "batch" else 0
    if a.field:
        ints[k.FIELD] = _offset(plan, f"recent{at}_{a.field}")
    ints[k.OPERAND] = _OPERANDS.get(a.field, k.USER_ID) if a.read in MATCHING_READS else k.USER_ID


def _word(feature: Feature) -> str:
    a: Any = feature.aggregate
    return getattr(a, "read", "") or getattr(a, "which", "") or getattr(a, "function", "") or type(a).__name__


def _offset(plan: Plan, name: str) -> int:
    assert plan.dtype.fields is not None
    return int(plan.dtype.fields[name][1])
