"""Samples as columns that can be compared, whatever scheme they come from: lake tables in, numpy out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.contract.columns import F32
from services.contract.errors import InvalidInput
from services.contract.view_registry import FeatureSet

NOWHERE = -1


@dataclass(frozen=True)
class Encoded:
    """Features of n samples: ``users`` [n, user_width], ``items`` [n, item_width] of a set, float32."""

    feature_set: FeatureSet
    users: NDArray[np.float32]
    items: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: NDArray) -> Encoded:
        """Some rows, in the order given."""
        return Encoded(self.feature_set, self.users[rows], self.items[rows])

    def column(self, name: str) -> NDArray[np.float32]:
        """A column by its name in the set; NotFound."""
        column = self.feature_set.column(name)
        if column.per_candidate:
            return self.items[:, self.feature_set.candidate_columns.index(column)]
        return self.users[:, self.feature_set.request_columns.index(column)]


def encoded(samples: pa.Table, feature_set: FeatureSet) -> Encoded:
    """The features of samples (contract.lake_schema). InvalidInput when a row has another width."""
    return Encoded(
        feature_set,
        matrix(samples, "user_features", feature_set.user_width),
        matrix(samples, "item_features", feature_set.item_width),
    )


def matrix(table: pa.Table, name: str, width: int) -> NDArray[np.float32]:
    """A binary column of ``width`` float32 on each row, as [n, width]."""
    sizes = pc.binary_length(table[name])
    wrong = pc.sum(pc.not_equal(pc.fill_null(sizes, -1), 4 * width)).as_py() or 0
    if wrong:
        raise InvalidInput.one(name, f"{wrong} rows of other sizes", f"{4 * width} bytes on every row")
    return np.frombuffer(b"".join(table[name].to_pylist()), F32).reshape(-1, width)


class RowIndex:
    """Finds rows by (request_id, item_id); of several with one key the first."""

    def __init__(self, request_ids: pa.ChunkedArray, item_ids: NDArray[np.uint64]) -> None:
        self._requests = pc.unique(request_ids)
        self._items = np.unique(item_ids)
        keys = self._keys_of(request_ids, item_ids)
        self._rows = np.argsort(keys, kind="stable")
        self._keys = keys[self._rows]

    def find(self, request_ids: pa.ChunkedArray, item_ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row of each key [n]; NOWHERE for one that is not there."""
        if not len(self._keys):
            return np.full(len(item_ids), NOWHERE)
        keys = self._keys_of(request_ids, item_ids)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where((self._keys[at] == keys) & (keys != NOWHERE), self._rows[at], NOWHERE)

    def _keys_of(self, request_ids: pa.ChunkedArray, item_ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        request = pc.fill_null(pc.index_in(request_ids, self._requests), NOWHERE).to_numpy()
        if not len(self._items):
            return np.full(len(item_ids), NOWHERE)
        item = np.minimum(np.searchsorted(self._items, item_ids), len(self._items) - 1)
        known = (request != NOWHERE) & (self._items[item] == item_ids)
        return np.where(known, request.astype(np.int64) * len(self._items) + item, NOWHERE)
