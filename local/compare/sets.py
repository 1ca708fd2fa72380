"""Two sets of samples against each other: completeness, and every difference with its code. Pure.

The codes are those of the lake's reconciliation. What a scheme cannot know (``lookup`` has no snapshot, so no
score and no model version) is a difference like any other; whether it is allowed is the verdict's to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from local.compare.rows import NOWHERE
from local.compare.truth import Truth

# What must be equal, by the code of its difference; with request, item and version a canonical tuple.
COMPARED = {
    "label_differs": ("label",),
    "time_differs": ("occurred_us", "impressed_us", "acted_us", "scored_us"),
    "features_differ": ("schema_hash", "user_features", "item_features"),
    "score_differs": ("score",),
    "position_differs": ("position",),
    "model_differs": ("generation", "policy", "sequence", "arm"),
    "user_differs": ("user_id",),
    "rate_differs": ("sample_rate",),
}
MISSING, EXTRA, DUPLICATE, CORRECTION = "missing", "extra", "duplicate", "correction"
CODES = (MISSING, EXTRA, DUPLICATE, CORRECTION, *COMPARED)


@dataclass(frozen=True)
class Matched:
    """The first labels of a scheme beside the oracle's. ``rows``: of the scheme's table, ``at``: the true
    row of each; an item that is there more than once counts with its first record."""

    rows: NDArray[np.int64]
    at: NDArray[np.int64]
    completeness: float
    counts: Mapping[str, int]


def match(truth: Truth, samples: pa.Table) -> Matched:
    """Finds each sample's truth. ``completeness``: shown items with exactly one first label, of those that
    become samples by the oracle's word; 1 when there are none."""
    first = np.flatnonzero(samples["label_version"].to_numpy() == 0)
    at = truth.find(samples.take(pa.array(first)))
    known = at != NOWHERE
    records = np.bincount(at[known], minlength=len(truth))
    _, once = np.unique(at[known], return_index=True)
    counts = {
        MISSING: int((records == 0).sum()),
        EXTRA: int((~known).sum()),
        DUPLICATE: int((records[records > 1] - 1).sum()),
        CORRECTION: samples.num_rows - len(first),
    }
    completeness = float((records == 1).mean()) if len(truth) else 1.0
    return Matched(first[known][once], at[known][once], completeness, counts)


def differences(truth: Truth, samples: pa.Table, matched: Matched) -> dict[str, int]:
    """How many samples differ from the oracle's, by code; every code named."""
    mine, theirs = samples.take(pa.array(matched.rows)), truth.samples.take(pa.array(matched.at))
    found = dict(matched.counts)
    for code, names in COMPARED.items():
        differ = np.zeros(len(matched.rows), bool)
        for name in names:
            differ |= _unequal(mine[name], theirs[name])
        found[code] = int(differ.sum())
    return found


def _unequal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Row by row; nulls are equal to each other and to nothing else."""
    if pa.types.is_floating(one.type):
        # By their bits, as features are.
        one, other = (pc.cast(_bits(values), pa.uint32()) for values in (one, other))
    equal = pc.fill_null(pc.equal(one, other), False)
    both_null = pc.and_(pc.is_null(one), pc.is_null(other))
    return ~np.asarray(pc.or_(equal, both_null).to_numpy(zero_copy_only=False), bool)


def _bits(values: pa.ChunkedArray) -> pa.Array:
    array = values.combine_chunks()
    return array.view(pa.uint32())
