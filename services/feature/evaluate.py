"""From the states of one request to its columns, in as few steps as possible. Pure.

What depends on a candidate through its category, or through being one of the user's last items, is computed
once per distinct case and spread over the candidates. The bits are those of contract.features.encode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.contract.view_plan import NONE_US, plan_of
from services.contract.view_read import read, records_of
from services.feature.item_table import Items
from services.feature.layout import Layout, Placed

_DENSE_CATEGORIES = 4_096


@dataclass(frozen=True)
class Categories:
    """distinct [c], ascending; ``of`` [n]: the place of each candidate's among them."""

    distinct: NDArray[np.int64]
    of: NDArray[np.intp]


def categories(layout: Layout, items: Items) -> Categories:
    """The candidates' categories."""
    values = items.rows[:, layout.feature_set.category_column].astype(np.int64)
    if len(values) and values.min() >= 0 and values.max() < _DENSE_CATEGORIES:
        # A sort costs five times as much.
        there = np.flatnonzero(np.bincount(values))
        place = np.zeros(int(values.max()) + 1, np.intp)
        place[there] = np.arange(len(there))
        return Categories(there, place[values])
    distinct, of = np.unique(values, return_inverse=True)
    return Categories(distinct, of)


def category_entities(placed: Placed, user_id: int, found: Categories) -> bytes:
    """The entities [c] of a view by category, one after the other."""
    columns = {
        "user_id": np.full(len(found.distinct), user_id, np.uint64),
        "category": found.distinct.astype(np.uint64),
    }
    return np.stack([columns[name] for name in placed.view.key], axis=1).astype("<u8").tobytes()


@dataclass(frozen=True)
class States:
    """What Redis holds besides the items: of the user a value per user view, and per view by category [c]."""

    users: Sequence[bytes | None]
    categories: Sequence[Sequence[bytes | None]]


@dataclass(frozen=True)
class Evaluated:
    """user [user_width], items [n, item_width]; missing_user: no user view has a state; newest_us: of the
    user's states."""

    user: NDArray[np.float32]
    items: NDArray[np.float32]
    missing_user: bool
    newest_us: int


def evaluate(
    layout: Layout,
    states: States,
    items: Items,
    found: Categories,
    *,
    item_ids: NDArray[np.uint64],
    at_us: int,
) -> Evaluated:
    """The columns of one request; ``items.rows`` are filled up in place."""
    feature_set = layout.feature_set
    user = feature_set.user_defaults.copy()
    rows = items.rows
    at = np.array([at_us], np.int64)
    missing_user, newest_us = True, NONE_US
    for placed, value in zip(layout.users, states.users, strict=True):
        record = records_of(plan_of(placed.view), [value])
        if record["version"][0]:
            newest_us = max(newest_us, int(record["newest_us"][0]))
        if placed.view.operands:
            cases, case_of = _cases(placed, record, item_ids, found)
            values = read(placed.view, record, at, cases)
            rows[:, placed.at] = values.values[case_of[:, None], placed.own]
        else:
            values = read(placed.view, record, at)
        user[placed.request_at] = values.values[0, placed.request_own]
        missing_user &= bool(values.missing[0])
    for placed in layout.instants:
        values = read(placed.view, np.zeros(1, np.uint8), at)
        user[placed.request_at] = values.values[0, placed.request_own]
        rows[:, placed.at] = values.values[0, placed.own]
    for placed, of_categories in zip(layout.categories, states.categories, strict=True):
        if not len(found.distinct):
            continue
        records = records_of(plan_of(placed.view), of_categories)
        values = read(placed.view, records, np.full(len(records), at_us))
        rows[:, placed.at] = values.values[found.of[:, None], placed.own]
    return Evaluated(user, rows, missing_user, newest_us)


def _cases(
    placed: Placed, record: NDArray, item_ids: NDArray[np.uint64], found: Categories
) -> tuple[dict[str, NDArray], NDArray[np.intp]]:
    """The distinct candidates that a comparing view can tell apart, and which of them each one is: a
    candidate that no event of the state names is like any other of its category."""
    named = np.unique(
        np.concatenate([record[name].ravel() for name in _item_columns(placed)] or [np.zeros(0, np.uint64)])
    )
    other = _none_of(named)
    # Without candidates the request's own features still want one.
    distinct = found.distinct if len(found.distinct) else np.zeros(1, np.int64)
    hit = np.flatnonzero(np.isin(item_ids, named)) if len(named) else np.zeros(0, np.intp)
    case_of = found.of.copy()
    case_of[hit] = len(distinct) + np.arange(len(hit))
    cases = {
        "category": np.concatenate([distinct, found.distinct[found.of[hit]]]),
        "item_id": np.concatenate([np.full(len(distinct), other, np.uint64), item_ids[hit]]),
        "user_id": np.zeros(len(distinct) + len(hit), np.uint64),
    }
    return cases, case_of


def _item_columns(placed: Placed) -> list[str]:
    names = placed.plan.dtype.names or ()
    return [name for name in names if name.startswith("recent") and name.endswith("_item_id")]


def _none_of(ids: NDArray[np.uint64]) -> int:
    """An id that is not among these (ascending)."""
    for candidate in range(len(ids) + 1):
        if candidate >= len(ids) or int(ids[candidate]) != candidate:
            return candidate
    return len(ids)
