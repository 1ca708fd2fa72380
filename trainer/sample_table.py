"""Samples of the lake (contract.lake_schema) as training batches: what the joiner's records become online,
from a table. Pure."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.contract import columns
from services.contract.errors import InvalidInput
from services.contract.model_schema import ModelShape
from trainer.sample_columns import SampleColumns
from trainer.samples import Batch


def in_order(samples: pa.Table) -> pa.Table:
    """First labels by time of impression, then request and position: an order that no scheme decides."""
    first = samples.filter(pc.equal(samples["label_version"], 0))
    keys = ("impressed_us", "request_id", "position", "item_id")
    return first.sort_by([(name, "ascending") for name in keys]).combine_chunks()


def usable(samples: pa.Table, features: SampleColumns) -> tuple[pa.Table, dict[str, int]]:
    """The rows that have all columns of the model, and how many have not, by why."""
    if nulls := samples["schema_hash"].null_count:
        raise InvalidInput.one("schema_hash", f"{nulls} nulls", "a value on every row")
    left_out = {"schema_hash": 0, "lacks_columns": 0}
    good = []
    for found in pc.value_counts(samples["schema_hash"]).to_pylist():
        if features.source(found["values"]) is None:
            left_out["schema_hash"] += found["counts"]
        elif features.lacks(found["values"]):
            left_out["lacks_columns"] += found["counts"]
        else:
            good.append(found["values"])
    if not any(left_out.values()):
        return samples, left_out
    return samples.filter(pc.is_in(samples["schema_hash"], pa.array(good, pa.uint64()))), left_out


def batch_of(samples: pa.Table, shape: ModelShape, features: SampleColumns | None = None) -> Batch:
    """All rows of a table as one batch, rows of one request (neighbours) with one owner. ``features``: how
    ``usable`` rows become the model's columns; None = all rows carry just these.

    InvalidInput names a column that cannot be trained: of other widths, not finite, or without a value."""
    for name in ("request_id", "user_id", "item_id", "label", "position", "sample_rate", "occurred_us"):
        if samples[name].null_count:
            raise InvalidInput.one(name, f"{samples[name].null_count} nulls", "a value on every row")
    if features is None:
        features, hashes = SampleColumns(shape), np.full(len(samples), shape.schema_hash, np.uint64)
    else:
        hashes = _numbers(samples, "schema_hash", columns.U64)
    labels = _numbers(samples, "label", columns.F32)
    rates = _numbers(samples, "sample_rate", columns.F32)
    requests = samples["request_id"]
    begins = pc.not_equal(requests[1:], requests[:-1]).to_numpy() if len(samples) else np.zeros(0, bool)
    return Batch(
        records=[],
        owner=np.concatenate(([0], np.cumsum(begins)))[: len(samples)],
        user_ids=_numbers(samples, "user_id", columns.U64),
        item_ids=_numbers(samples, "item_id", columns.U64),
        labels=labels,
        # A scheme that has no snapshot has no scores; they are not learned from.
        scores=np.nan_to_num(_numbers(samples, "score", columns.F32)),
        positions=_numbers(samples, "position", columns.I64),
        negatives=np.where(labels > 0, 1, 1 / rates).astype(np.float32),
        user_features=_matrix(samples, "user_features", hashes, features),
        item_features=_matrix(samples, "item_features", hashes, features),
        occurred_us=_numbers(samples, "occurred_us", columns.I64),
    )


def _numbers(samples: pa.Table, name: str, dtype: np.dtype) -> NDArray:
    return np.array(samples[name].to_numpy(), dtype)


def _matrix(
    samples: pa.Table, name: str, hashes: NDArray[np.uint64], features: SampleColumns
) -> NDArray[np.float32]:
    """A binary column as [n, the model's width]."""
    of_items = name == "item_features"
    for one in np.unique(hashes).tolist():
        width = features.widths(one)[of_items]
        rows = samples[name].filter(pa.array(hashes == one))
        if rows.null_count or pc.min_max(pc.binary_length(rows)).as_py() != _both(4 * width):
            raise InvalidInput.one(name, "other sizes", f"{4 * width} bytes on every row")
    values = (features.items if of_items else features.users)(hashes, samples[name].to_pylist())
    if not np.isfinite(values).all():
        raise InvalidInput.one(name, "NaN or infinity", "finite values")
    return values


def _both(size: int) -> dict[str, int]:
    return {"min": size, "max": size}
