"""Batch features by name: a snapshot says from which table they came instead of carrying them.

A table is one immutable partition of a view: here ``item_catalog``, the catalogue as it was when the
partition was published (view_store). It holds what the batch columns are made of (category, birth): those of
the feature set's CATALOGUE view, evaluated at the request's time, as ranking's features were.

Exactness is checked twice. The writer names a row only where the table gives the very bits that were scored;
the columns of other rows (items born since, defaults) travel inline. The reader compares the hash of the
whole rebuilt matrix with that of the scored one: another table, or another version of this code, gives a
reason, never a wrong value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from rec.events.v1 import events_pb2 as ev
from services.contract import columns, times
from services.contract.view_plan import NONE_US, STATE_VERSION, plan_of
from services.contract.view_read import read
from services.contract.view_registry import FeatureSet

VIEW = "item_catalog"
VERSION = 1


@dataclass(frozen=True)
class Table:
    """One partition of ``item_catalog``. ``item_ids`` [n] ascending; ``created_us`` 0 = unknown."""

    partition: int
    item_ids: NDArray[np.uint64]
    category: NDArray[np.uint32]
    created_us: NDArray[np.int64]

    def name(self) -> ev.BatchView:
        """As snapshots name it."""
        return ev.BatchView(view=VIEW, version=VERSION, partition=self.partition)

    def digest(self) -> int:
        """xxh64 of the columns."""
        digest = xxhash.xxh64(seed=0)
        for column, dtype in ((self.item_ids, "<u8"), (self.category, "<u4"), (self.created_us, "<i8")):
            digest.update(column.astype(dtype, copy=False).tobytes())
        return digest.intdigest()

    def columns_at(
        self, feature_set: FeatureSet, item_ids: NDArray[np.uint64], at_us: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """([n, batch columns] float32, [n] whether the item is here) of ``item_ids`` [n]."""
        if not len(self.item_ids):
            return np.zeros((len(item_ids), len(feature_set.batch)), np.float32), np.zeros(
                len(item_ids), bool
            )
        at = np.minimum(np.searchsorted(self.item_ids, item_ids), len(self.item_ids) - 1)
        known = self.item_ids[at] == item_ids
        return _catalogue_columns(feature_set, self.category[at], self.created_us[at], at_us), known


def _catalogue_columns(
    feature_set: FeatureSet, category: NDArray[np.uint32], created_us: NDArray[np.int64], at_us: int
) -> NDArray[np.float32]:
    """What the CATALOGUE view says of items at ``at_us``: read from states, as ranking's features were, so
    that the bits are the same."""
    view = feature_set.catalogue
    plan = plan_of(view)
    records = np.zeros(len(category), plan.dtype)
    records["version"], records["fingerprint"] = STATE_VERSION, plan.fingerprint
    records["newest_us"] = _LISTED_US
    given = {"us": np.full(len(category), _LISTED_US), "category": category, "created_at": created_us}
    for index, recent in enumerate(plan.recents):
        records[f"recent{index}_us"] = NONE_US
        for name in ("us", *recent.fields):
            # A field that a table does not hold stays 0: then the bits differ, and the columns travel.
            if name in given:
                records[f"recent{index}_{name}"][:, 0] = given[name].astype(np.int64).view(np.uint64)
    values = read(view, records, np.full(len(records), at_us, np.int64)).values
    return values[:, [feature_set.candidate_columns[place].index for place in feature_set.batch]]


# A listing holds for all time.
_LISTED_US = 0
# The table of a name, or why there is none.
Find = Callable[[ev.BatchView], Table | str]


def table(partition: int, items: Iterable[tuple[int, int, int]]) -> Table:
    """From (item id, category, created_us), each item once; a category that is none (not in 32 bits) is 0."""
    rows = sorted(items)
    return Table(
        partition,
        np.array([row[0] for row in rows], np.uint64),
        np.array([row[1] if 0 <= row[1] < 1 << 32 else 0 for row in rows], np.uint32),
        np.array([row[2] for row in rows], np.int64),
    )


def slim(snapshot: ev.FeatureSnapshot, named: Table | None, feature_set: FeatureSet) -> ev.FeatureSnapshot:
    """The snapshot without its batch columns, except those that ``named`` does not give bit by bit. Its
    columns are those of ``feature_set``, and whatever has been added behind them."""
    ids = np.frombuffer(snapshot.item_ids, columns.U64)
    width = max(feature_set.item_width, len(snapshot.item_features) // (4 * max(1, len(ids))))
    scored = columns.decode_matrix("item_features", snapshot.item_features, len(ids), width)
    batch = scored[:, feature_set.batch]
    inline = np.ones(len(ids), bool)
    if named is not None:
        found, known = named.columns_at(feature_set, ids, times.to_us(snapshot.occurred_at))
        # As integers: 0.0 == -0.0, and these are not the same bytes.
        inline = ~(known & (found.view(np.uint32) == batch.view(np.uint32)).all(axis=1))
    made = ev.FeatureSnapshot()
    made.CopyFrom(snapshot)
    made.item_features = columns.encode(scored[:, _others(feature_set, width)], columns.F32)
    made.slim.item_features_hash = xxhash.xxh64_intdigest(snapshot.item_features, seed=0)
    rows = np.flatnonzero(inline)
    if len(rows):
        made.slim.inline_rows = columns.encode(rows, columns.U32)
        made.slim.inline_features = columns.encode(batch[rows], columns.F32)
    if named is not None and len(rows) < len(ids):
        made.slim.batch_view.CopyFrom(named.name())
    return made


def complete(snapshot: ev.FeatureSnapshot, find: Find, feature_set: FeatureSet) -> str | None:
    """Makes a slim snapshot whole, in place; nothing to do for a whole one. Its columns are those of
    ``feature_set``, and whatever has been added behind them. What it says is why it cannot, and then nothing
    has changed."""
    if not snapshot.HasField("slim"):
        return None
    thin = snapshot.slim
    ids = np.frombuffer(snapshot.item_ids, columns.U64)
    inline, width = np.frombuffer(thin.inline_rows, columns.U32), len(feature_set.batch)
    others = len(snapshot.item_features) // (4 * max(1, len(ids)))
    if (
        len(snapshot.item_features) != 4 * len(ids) * others
        or others < len(feature_set.not_batch)
        or len(thin.inline_features) != 4 * len(inline) * width
        or (len(inline) and int(inline.max()) >= len(ids))
    ):
        return f"{len(snapshot.item_features)} bytes of columns for {len(ids)} items, {len(inline)} inline"
    batch = np.zeros((len(ids), width), np.float32)
    if len(inline) < len(ids):
        named = find(thin.batch_view)
        if isinstance(named, str):
            return named
        batch, _ = named.columns_at(feature_set, ids, times.to_us(snapshot.occurred_at))
    batch[inline] = np.frombuffer(thin.inline_features, columns.F32).reshape(-1, width)
    whole = np.empty((len(ids), others + width), np.float32)
    whole[:, feature_set.batch] = batch
    whole[:, _others(feature_set, others + width)] = np.frombuffer(
        snapshot.item_features, columns.F32
    ).reshape(len(ids), -1)
    data = columns.encode(whole, columns.F32)
    if xxhash.xxh64_intdigest(data, seed=0) != thin.item_features_hash:
        return f"batch view {label(thin.batch_view)} does not give the features that were scored"
    snapshot.item_features = data
    snapshot.ClearField("slim")
    return None


def _others(feature_set: FeatureSet, width: int) -> list[int]:
    """The columns of [n, ``width``] that the catalogue does not decide, those of added views among them."""
    return [*feature_set.not_batch, *range(feature_set.item_width, width)]


def label(view: ev.BatchView) -> str:
    """A name for people."""
    return f"{view.view or '-'}/v{view.version}/{view.partition}"
