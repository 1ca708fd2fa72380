"""Packed columns of whole Arrow columns at once: lists of ids, and rows cut out of many small matrices."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.contract.columns import F32, U32, U64
from services.contract.errors import InvalidInput


def packed(field: str, column: pa.Array, dtype: np.dtype) -> tuple[NDArray, NDArray]:
    """(values, bounds) of a binary column: row k is ``values[bounds[k] : bounds[k + 1]]``, a null row is
    empty. The values are the column's own bytes.

    InvalidInput names ``field`` when a row is not n x the width of ``dtype``."""
    _, offsets, data = column.buffers()
    if offsets is None or data is None:
        return np.empty(0, dtype), np.zeros(len(column) + 1, np.int64)
    ends = np.frombuffer(offsets, np.int32, len(column) + 1, 4 * column.offset)
    bounds, rest = np.divmod(ends.astype(np.int64), dtype.itemsize)
    if rest.any():
        raise InvalidInput.one(field, f"{rest.max()} bytes over", f"rows of n x {dtype.itemsize} bytes")
    return np.frombuffer(data, dtype, bounds[-1]), bounds


def lists_of_ids(field: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """n x uint64 LE as lists of uint64, on the same bytes; null rows are empty lists."""
    lists = []
    for chunk in column.chunks:
        values, bounds = packed(field, chunk, U64)
        lists.append(pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), pa.array(values)))
    return pa.chunked_array(lists, pa.list_(pa.uint64()))


def pack_ids(lists: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists of uint64 as n x uint64 LE; null rows are empty."""
    parts = []
    for chunk in lists.chunks:
        sizes = np.diff(chunk.offsets.to_numpy())
        sizes[chunk.is_null().to_numpy(zero_copy_only=False)] = 0
        parts.append(_binary(chunk.flatten().to_numpy().astype(U64), 8 * sizes.astype(np.int64)))
    return pa.chunked_array(parts, pa.binary())


def cut_rows(field: str, matrices: pa.Array, ids: pa.Array, at: NDArray, row: NDArray) -> pa.Array:
    """Bytes of row ``row[k]`` of the float32 matrix ``matrices[at[k]]``, which has a row per id of
    ``ids[at[k]]``. Widths may differ between matrices. Both columns are binary."""
    values, bounds = packed(field, matrices, U32)
    _, id_bounds = packed("item_ids", ids, U64)
    widths = (np.diff(bounds) // np.maximum(np.diff(id_bounds), 1))[at]
    ends = np.cumsum(widths)
    shift = bounds[at] + row * widths - (ends - widths)
    cut = values[np.arange(widths.sum()) + np.repeat(shift, widths)]
    return _binary(cut, 4 * widths)


def _binary(values: NDArray, sizes: NDArray) -> pa.Array:
    """A binary column of consecutive pieces of ``values``, ``sizes`` bytes each."""
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
    return pa.Array.from_buffers(
        pa.binary(), len(sizes), [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(values))]
    )


def matrix(field: str, column: pa.ChunkedArray, width: int) -> NDArray[np.float32]:
    """A binary column of ``width`` float32 each, as [n, width]. InvalidInput: a row of another size."""
    sizes = pc.fill_null(pc.binary_length(column), -1).to_numpy()
    if (sizes != 4 * width).any():
        wrong = int((sizes != 4 * width).sum())
        raise InvalidInput.one(field, f"{wrong} rows of other sizes", f"{4 * width} bytes on every row")
    return np.frombuffer(b"".join(column.to_pylist()), F32).reshape(-1, width)


def pack_rows(values: NDArray[np.float32]) -> pa.Array:
    """The rows of a matrix as a binary column; the inverse of ``matrix``."""
    return _binary(values.astype(F32).ravel(), np.full(len(values), 4 * values.shape[1], np.int64))
