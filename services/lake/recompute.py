"""Training rows with the columns of a view that was not served yet when they were logged.

What was scored stays what was scored, byte for byte (invariant 1); behind it come the new view's columns,
made by the as-of join from what had happened before the request, and said to be so: ``recomputed`` names the
view on these rows, ``schema_hash`` is that of the wider set. Which candidate a row is about (its category
too) is what the row itself says, as in the audit. Rows that were served with the view stay as they are.

Rows of any other schema cannot be widened: they are left out, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.contract.columns import F32
from services.contract.feature_view import FeatureView
from services.contract.view_asof import asof
from services.contract.view_log import EventLog, Labels
from services.contract.view_registry import FeatureSet
from services.lake.packed import matrix, pack_rows

# Rows that are joined at once: a list of the last 64 takes 2 KB of each.
CHUNK_ROWS = 50_000
RECOMPUTED = "recomputed"


@dataclass(frozen=True)
class Widened:
    """``table``: columns of the lake's samples, and ``recomputed``: name.version, null where the columns were
    served. ``missing``: recomputed rows of which the log knows nothing before their request; ``served``: rows
    that had the view's columns; ``other_schema``: rows left out."""

    table: pa.Table
    missing: int
    served: int
    other_schema: int


def wider(features: FeatureSet, view: FeatureView) -> FeatureSet:
    """The set with one view more; its columns begin with the set's. InvalidInput: it has one of that name."""
    return FeatureSet((*features.views, view))


def widened(features: FeatureSet, view: FeatureView, samples: pa.Table, log: EventLog) -> Widened:
    """``samples``: of the lake's table. InvalidInput: a row whose bytes are none of the set's."""
    new = wider(features, view)
    rows = _of(samples, features)
    served = _of(samples, new)
    users = matrix("user_features", rows["user_features"], features.user_width)
    items = matrix("item_features", rows["item_features"], features.item_width)
    found, missing = _values(features, view, rows, items, log)
    request = [c.index for c in new.request_columns if c.view is view]
    candidate = [c.index for c in new.candidate_columns if c.view is view]
    columns = {
        "user_features": pack_rows(np.concatenate([users, found[:, request]], axis=1)),
        "item_features": pack_rows(np.concatenate([items, found[:, candidate]], axis=1)),
        "schema_hash": pa.array(np.full(len(rows), new.schema_hash, np.uint64)),
    }
    for name, column in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
    both = pa.concat_tables([_marked(rows, view.full_name), _marked(served, None)])
    return Widened(both, missing, len(served), samples.num_rows - len(both))


def _of(samples: pa.Table, features: FeatureSet) -> pa.Table:
    same = pc.equal(samples["schema_hash"], pa.scalar(features.schema_hash, pa.uint64()))
    return samples.filter(pc.fill_null(same, False)).combine_chunks()


def _marked(rows: pa.Table, name: str | None) -> pa.Table:
    return rows.append_column(RECOMPUTED, pa.repeat(pa.scalar(name, pa.string()), len(rows)))


def _values(
    features: FeatureSet, view: FeatureView, rows: pa.Table, items: NDArray[np.float32], log: EventLog
) -> tuple[NDArray[np.float32], int]:
    """([n, features of the view], how many rows have no state)."""
    labels = Labels(
        rows["occurred_us"].to_numpy().astype(np.int64),
        {
            "user_id": rows["user_id"].to_numpy().astype(np.uint64),
            "item_id": rows["item_id"].to_numpy().astype(np.uint64),
            "category": items[:, features.category_column].astype(np.int64),
        },
    )
    values = np.empty((len(rows), len(view.features)), F32)
    missing = 0
    for start in range(0, len(rows), CHUNK_ROWS):
        some = np.arange(start, min(start + CHUNK_ROWS, len(rows)))
        said = asof(view, log, labels.take(some))
        values[some] = said.values
        missing += int(said.missing.sum())
    return values, missing
