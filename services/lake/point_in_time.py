"""Features as of a moment, of any rows, from a log: the as-of join over the views of a feature set.

A row is a user, an item and an event time. Its category is what the set's catalogue says of the item at that
time, as online. A row before which nothing happened has the declared defaults and ``missing`` 1; no row is
ever left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from services.contract.errors import FieldViolation, InvalidInput, NotFound
from services.contract.feature_view import FeatureView
from services.contract.features import category_of
from services.contract.view_asof import asof
from services.contract.view_events import MAX_TIME_US
from services.contract.view_log import EventLog, Labels, Mode
from services.contract.view_registry import FeatureSet, ViewColumn
from services.contract.view_values import Values


@dataclass(frozen=True)
class Rows:
    """[n] each: user_ids, item_ids uint64 (0 where a row has none), at_us int64 event time. ``wall_us`` [n]:
    wall time of the request, for ``as_served``.

    InvalidInput names the first row of each column that is out of range.
    """

    user_ids: NDArray[np.uint64]
    item_ids: NDArray[np.uint64]
    at_us: NDArray[np.int64]
    wall_us: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        bad: list[FieldViolation] = []
        times = {"occurred_us": self.at_us} | ({} if self.wall_us is None else {"served_us": self.wall_us})
        for name, column in {"item_ids": self.item_ids, "user_ids": self.user_ids, **times}.items():
            if len(column) != len(self.at_us):
                bad.append(FieldViolation(name, f"{len(column)} rows", f"{len(self.at_us)}, as occurred_us"))
        for name, column in times.items():
            wrong = np.flatnonzero((column < 0) | (column > MAX_TIME_US))
            if len(wrong):
                bad.append(FieldViolation(f"{name}[{wrong[0]}]", str(column[wrong[0]]), "0 to 2**60 us"))
        if bad:
            raise InvalidInput(bad)

    def __len__(self) -> int:
        return len(self.at_us)

    def labels(self, category: NDArray[np.int64] | None = None) -> Labels:
        """As the as-of join takes them; category 0 when none is given."""
        known = np.zeros(len(self), np.int64) if category is None else category
        fields = {"user_id": self.user_ids, "item_id": self.item_ids, "category": known}
        return Labels(self.at_us, fields, self.wall_us)


@dataclass(frozen=True)
class Found:
    """values [n, columns] float32, missing [n, columns] uint8: 1 where the default stands in."""

    columns: tuple[ViewColumn, ...]
    values: NDArray[np.float32]
    missing: NDArray[np.uint8]


def columns_of(feature_set: FeatureSet, names: Sequence[str]) -> tuple[ViewColumn, ...]:
    """The columns of names, each a column (user_activity_ctr) or a view (user_activity: all of it); every
    column when there are none. NotFound says what there is; InvalidInput a column twice."""
    every = (*feature_set.request_columns, *feature_set.candidate_columns)
    found: list[ViewColumn] = []
    for name in names:
        these = [column for column in every if name in (column.name, column.view.name)]
        if not these:
            views = ", ".join(view.name for view in feature_set.views)
            raise NotFound(f"no feature {name[:100]!r}: a column of the set, or one of the views {views}")
        found += these
    chosen = [column.name for column in found]
    again = sorted({name for name in chosen if chosen.count(name) > 1})
    if again:
        raise InvalidInput.one("features", ", ".join(again), "each once")
    return tuple(found) if names else every


def check_mode(mode: str, rows: Rows, lag_us: int) -> None:
    """InvalidInput when rows cannot be asked in a mode."""
    bad = []
    if mode not in get_args(Mode):
        bad.append(FieldViolation("mode", mode[:100], f"one of {', '.join(get_args(Mode))}"))
    if mode == "as_served" and rows.wall_us is None:
        bad.append(FieldViolation("served_us", "none", "the wall time of each row, for as_served"))
    if lag_us < 0:
        bad.append(FieldViolation("lag", f"{lag_us} us", "at least 0"))
    if bad:
        raise InvalidInput(bad)


class PointInTime:
    """What the views of a set say of some rows; each view is joined once, whatever is asked of it."""

    def __init__(self, feature_set: FeatureSet, log: EventLog, rows: Rows, mode: Mode, lag_us: int) -> None:
        check_mode(mode, rows, lag_us)
        self.feature_set, self.log, self.rows = feature_set, log, rows
        self.mode, self.lag_us = mode, lag_us
        self._values: dict[str, Values] = {}
        self._known: Labels | None = None

    def values(self, view: FeatureView) -> Values:
        """Of one view of the set."""
        if view.name not in self._values:
            self._values[view.name] = asof(view, self.log, self.labels(view), self.mode, self.lag_us)
        return self._values[view.name]

    def labels(self, view: FeatureView) -> Labels:
        """The rows as a view is asked by them."""
        if "category" not in (*view.key, *view.operands):
            return self.rows.labels()
        if self._known is None:
            self._known = self.rows.labels(
                category_of(self.feature_set, self.values(self.feature_set.catalogue))
            )
        return self._known

    def found(self, columns: Sequence[ViewColumn]) -> Found:
        """The columns side by side."""
        values = np.empty((len(self.rows), len(columns)), np.float32)
        missing = np.empty((len(self.rows), len(columns)), np.uint8)
        for place, column in enumerate(columns):
            said = self.values(column.view)
            values[:, place], missing[:, place] = said.values[:, column.index], said.missing
        return Found(tuple(columns), values, missing)
