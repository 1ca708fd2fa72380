"""Leaks: values of a training sample that are not those which were scored at t2. Pure.

A value leaks when its bits differ: it was read at another moment, and knows, or may know, what happened in
between. The mean absolute difference says how far values moved; a scheme that leaks nothing has 0 in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from local.compare.rows import Encoded
from services.contract.features import Column, described

KINDS = ("batch", "streaming", "instant")


@dataclass(frozen=True)
class ColumnLeak:
    """One column over n samples."""

    name: str
    kind: str
    rows: int
    changed: int
    moved: float

    @property
    def rate(self) -> float:
        """Share of the samples whose value is not the one that was scored; 0 without samples."""
        return self.changed / self.rows if self.rows else 0.0

    @property
    def mean_abs_difference(self) -> float:
        """Over all samples, unchanged ones included."""
        return self.moved / self.rows if self.rows else 0.0


def column_leaks(served: Encoded, found: Encoded) -> list[ColumnLeak]:
    """Every column of the encoding; row k of both is the same sample."""
    of_users, of_items = described(served.feature_set)
    users = _leaks(of_users, served.users, found.users)
    return users + _leaks(of_items, served.items, found.items)


def by_kind(columns: Sequence[ColumnLeak]) -> dict[str, ColumnLeak]:
    """The columns of each kind together: rows are values, (sample, column)."""
    return {
        kind: ColumnLeak(
            kind,
            kind,
            sum(one.rows for one in columns if one.kind == kind),
            sum(one.changed for one in columns if one.kind == kind),
            sum(one.moved for one in columns if one.kind == kind),
        )
        for kind in KINDS
    }


def changed(served: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where the bits differ: 0.0 and -0.0 do, the same NaN does not."""
    return _bits(served) != _bits(found)


def _bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def _leaks(
    columns: Sequence[Column], served: NDArray[np.float32], found: NDArray[np.float32]
) -> list[ColumnLeak]:
    if served.shape != found.shape:
        raise ValueError(f"{found.shape} values against {served.shape}")
    counts = changed(served, found).sum(axis=0)
    moved = np.abs(found.astype(np.float64) - served).sum(axis=0)
    return [
        ColumnLeak(column.name, column.kind, len(served), int(counts[at]), float(moved[at]))
        for at, column in enumerate(columns)
    ]
