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
from trainer.samples import Batch


def in_order(samples: pa.Table) -> pa.Table:
    """First labels by time of impression, then request and position: an order that no scheme decides."""
    first = samples.filter(pc.equal(samples["label_version"], 0))
    keys = ("impressed_us", "request_id", "position", "item_id")
    return first.sort_by([(name, "ascending") for name in keys]).combine_chunks()


def batch_of(samples: pa.Table, shape: ModelShape) -> Batch:
    """All rows of a table as one batch, rows of one request (neighbours) with one owner.

    InvalidInput names a column that cannot be trained: of other widths, not finite, or without a value."""
    for name in ("request_id", "user_id", "item_id", "label", "position", "sample_rate", "occurred_us"):
        if samples[name].null_count:
            raise InvalidInput.one(name, f"{samples[name].null_count} nulls", "a value on every row")
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
        user_features=_matrix(samples, "user_features", shape.user_width),
        item_features=_matrix(samples, "item_features", shape.item_width),
        occurred_us=_numbers(samples, "occurred_us", columns.I64),
    )


def _numbers(samples: pa.Table, name: str, dtype: np.dtype) -> NDArray:
    return np.array(samples[name].to_numpy(), dtype)


def _matrix(samples: pa.Table, name: str, width: int) -> NDArray[np.float32]:
    """A binary column as [n, width]."""
    sizes = pc.binary_length(samples[name])
    if samples[name].null_count or (len(samples) and pc.min_max(sizes).as_py() != _both(4 * width)):
        raise InvalidInput.one(name, "other sizes", f"{4 * width} bytes on every row")
    data = bytearray().join(samples[name].to_pylist())
    values = np.frombuffer(data, columns.F32).reshape(-1, width)
    if not np.isfinite(values).all():
        raise InvalidInput.one(name, "NaN or infinity", "finite values")
    return values


def _both(size: int) -> dict[str, int]:
    return {"min": size, "max": size}
