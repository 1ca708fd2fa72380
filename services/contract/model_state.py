"""The state of a model: embedding tables, dense tensors, and the place in the chain that they stand for.

The trainer's own state, a base in the model store and base + deltas in ranking are this same thing, and
have the same digest at every sequence. Numpy only.

A table keeps row 0 of its matrices at zero, and ``slots`` gives 0 for an id that it does not have: a
gather needs no mask, and an unknown id scores like one that was never trained.

Not thread-safe: whoever applies a delta and whoever reads take turns on one thread.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.contract import columns, model_schema
from services.contract.delta import HASH_BYTES, Body, Header, TableChange, check_body, check_shapes
from services.contract.errors import Conflict
from services.contract.id_table import IdTable
from services.contract.model_schema import ModelShape

_MIN_ROWS = 64
ALL_COLUMNS = slice(0, model_schema.ROW_WIDTH)


class Pending:
    """Ids seen but not yet admitted: how often (uint32), and when last (event time, microseconds)."""

    def __init__(self) -> None:
        self._index = IdTable()
        self._counts = np.zeros(_MIN_ROWS, dtype=np.uint32)
        self._last_seen_us = np.zeros(_MIN_ROWS, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._index)

    def get(self, ids: NDArray[np.uint64]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Counts and last times of ids [n]; 0 for an id that is not pending."""
        rows = self._index.lookup(ids)
        known = rows >= 0
        counts = np.where(known, self._counts[rows], np.uint32(0)).astype(np.uint32)
        return counts, np.where(known, self._last_seen_us[rows], np.int64(0))

    def set(
        self, ids: NDArray[np.uint64], counts: NDArray[np.uint32], last_seen_us: NDArray[np.int64]
    ) -> None:
        """Writes distinct ids [n]; a count of 0 forgets the id."""
        keep = counts > 0
        self._index.delete(ids[~keep])
        rows = self._index.insert(ids[keep])
        self._counts = _grown(self._counts, self._index.row_limit)
        self._last_seen_us = _grown(self._last_seen_us, self._index.row_limit)
        self._counts[rows] = counts[keep]
        self._last_seen_us[rows] = last_seen_us[keep]

    def items(self) -> tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.int64]]:
        """Ids ascending, their counts, their last times."""
        ids, rows = self._index.items()
        return ids, self._counts[rows], self._last_seen_us[rows]

    def copy(self) -> Pending:
        """A copy that shares nothing."""
        twin = Pending.__new__(Pending)
        twin._index = self._index.copy()
        twin._counts, twin._last_seen_us = self._counts.copy(), self._last_seen_us.copy()
        return twin


class TableState:
    """One embedding table.

    ``rows`` float32 [capacity, width], ``optimizer`` float32 [capacity, OPTIMIZER_WIDTH], ``counts``
    uint32, ``last_seen_us`` int64 [capacity]; index them with ``slots``. The arrays are replaced when the
    table grows: take them anew after each change. ``columns`` keeps only that part of each row and drops
    the rest (recall needs a half); such a light table has no optimizer, counts or pending ids and no digest.
    """

    def __init__(self, kept: slice = ALL_COLUMNS) -> None:
        self.columns = kept
        self.light = kept != ALL_COLUMNS
        self._index = IdTable()
        width = len(range(*kept.indices(model_schema.ROW_WIDTH)))
        self.rows = np.zeros((_MIN_ROWS, width), dtype=np.float32)
        trained = 0 if self.light else _MIN_ROWS
        self.optimizer = np.zeros((trained, model_schema.OPTIMIZER_WIDTH), dtype=np.float32)
        self.counts = np.zeros(trained, dtype=np.uint32)
        self.last_seen_us = np.zeros(trained, dtype=np.int64)
        self.pending = Pending()

    def __len__(self) -> int:
        return len(self._index)

    def slots(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row number of each id [n], 0 (a row of zeros) where it has none."""
        found = self._index.lookup(ids)
        found += 1
        return found

    def add(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row number of each id; a new id gets a row of zeros."""
        slots = self._index.insert(ids) + 1
        limit = self._index.row_limit + 1
        self.rows = _grown(self.rows, limit)
        if not self.light:
            self.optimizer = _grown(self.optimizer, limit)
            self.counts = _grown(self.counts, limit)
            self.last_seen_us = _grown(self.last_seen_us, limit)
        return slots

    def remove(self, ids: NDArray[np.uint64]) -> None:
        """Takes ids out and zeroes their rows; an id that is not there is no matter."""
        slots = self._index.delete(ids) + 1
        slots = slots[slots > 0]
        self.rows[slots] = 0
        if not self.light:
            self.optimizer[slots] = 0
            self.counts[slots] = 0
            self.last_seen_us[slots] = 0

    def ids(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """All ids ascending, and their row numbers."""
        ids, rows = self._index.items()
        return ids, rows + 1

    def apply(self, change: TableChange) -> None:
        """Writes a checked change: tombstones first, then rows, then pending ids."""
        self.remove(change.expired_ids)
        slots = self.add(change.ids)
        self.rows[slots] = change.rows[:, self.columns]
        if not self.light:
            self.optimizer[slots] = change.optimizer
            self.counts[slots] = change.counts
            self.last_seen_us[slots] = change.last_seen_us
            self.pending.set(change.pending_ids, change.pending_counts, change.pending_last_seen_us)

    def everything(self, table: str) -> TableChange:
        """The whole table as one change, ids ascending."""
        ids, slots = self.ids()
        pending = self.pending.items()
        return TableChange(
            table, ids, self.rows[slots], self.optimizer[slots], self.counts[slots], self.last_seen_us[slots],
            pending_ids=pending[0], pending_counts=pending[1], pending_last_seen_us=pending[2],
        )  # fmt: skip

    def copy(self) -> TableState:
        """A copy that shares nothing."""
        twin = TableState.__new__(TableState)
        twin.columns, twin.light = self.columns, self.light
        twin._index, twin.pending = self._index.copy(), self.pending.copy()
        twin.rows, twin.optimizer = self.rows.copy(), self.optimizer.copy()
        twin.counts, twin.last_seen_us = self.counts.copy(), self.last_seen_us.copy()
        return twin


def zero_dense(shape: ModelShape) -> dict[str, NDArray[np.float32]]:
    """Dense tensors of zeros."""
    return {name: np.zeros(size, dtype=np.float32) for name, size in shape.dense.items()}


@dataclass
class ModelState:
    """A whole model at one place of its chain. ``chain_hash`` is the hash of the delta of ``sequence``, or at
    sequence 0 the digest of the generation's manifest. Tensors that are not given are zero."""

    shape: ModelShape
    generation: int = 1
    policy: str = "online"
    sequence: int = 0
    epoch: int = 0
    chain_hash: bytes = bytes(HASH_BYTES)
    # Wall time at which the newest parameters in here were published.
    created_at_us: int = 0
    sample_offsets: dict[int, int] = field(default_factory=dict)
    samples_trained: int = 0
    trained_until_us: int = 0
    open_barriers: dict[str, frozenset[int]] = field(default_factory=dict)
    tables: dict[str, TableState] = field(
        default_factory=lambda: {name: TableState() for name in model_schema.TABLES}
    )
    dense: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    dense_optimizer: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dense = zero_dense(self.shape) | self.dense
        self.dense_optimizer = zero_dense(self.shape) | self.dense_optimizer

    @property
    def rows(self) -> int:
        """Rows over all tables."""
        return sum(len(table) for table in self.tables.values())

    def copy(self) -> ModelState:
        """A copy that shares nothing mutable."""
        return ModelState(
            self.shape, self.generation, self.policy, self.sequence, self.epoch, self.chain_hash,
            self.created_at_us, dict(self.sample_offsets), self.samples_trained, self.trained_until_us,
            dict(self.open_barriers),
            {name: table.copy() for name, table in self.tables.items()},
            {name: values.copy() for name, values in self.dense.items()},
            {name: values.copy() for name, values in self.dense_optimizer.items()},
        )  # fmt: skip


def apply(state: ModelState, header: Header, body: Body, delta_hash: bytes) -> None:
    """Makes ``state`` the one that the delta describes, or raises and leaves it as it was.

    Conflict when the delta is not the next of this chain (contract.chain decides what then), BadDelta when a
    column does not fit. Dense tensors are written in place, so views of them stay valid.
    """
    here = (state.generation, state.policy)
    if header.lineage != here or header.sequence != state.sequence + 1:
        raise Conflict(f"delta {header.lineage} {header.sequence} on a state of {here} {state.sequence}")
    if header.previous_hash != state.chain_hash:
        raise Conflict(f"delta {header.sequence} continues another chain")
    check_body(body)
    check_shapes(body, state.shape)
    for change in body.tables:
        state.tables[change.table].apply(change)
    for tensor in body.dense:
        state.dense[tensor.name][...] = tensor.values
        state.dense_optimizer[tensor.name][...] = tensor.optimizer
    advance(state, header, delta_hash)


def advance(state: ModelState, header: Header, delta_hash: bytes) -> None:
    """Moves the state's place in the chain to that of a delta whose values it already holds."""
    state.sequence, state.epoch, state.chain_hash = header.sequence, header.epoch, delta_hash
    state.created_at_us = header.created_at_us
    state.sample_offsets = dict(header.sample_offsets)
    state.samples_trained, state.trained_until_us = header.samples_trained, header.trained_until_us
    state.open_barriers = dict(header.open_barriers)


def digest(state: ModelState) -> bytes:
    """SHA-256 over the canonical form: the shape's hash, every table by ascending id with optimizer, counts,
    times and pending ids, every dense tensor with its optimizer, sequence, sample offsets, samples trained,
    event clock, open barriers.

    Lineage, epoch and chain hash are the chain's to prove, and stay out.
    """
    out = hashlib.sha256(f"{state.shape.model_hash:016x}\n".encode())
    for name in model_schema.TABLES:
        table = state.tables[name]
        whole = table.everything(name)
        out.update(f"{name} {len(whole.ids)} {len(whole.pending_ids)}\n".encode())
        for values, dtype in (
            (whole.ids, columns.U64), (whole.rows, columns.F32), (whole.optimizer, columns.F32),
            (whole.counts, columns.U32), (whole.last_seen_us, columns.I64), (whole.pending_ids, columns.U64),
            (whole.pending_counts, columns.U32), (whole.pending_last_seen_us, columns.I64),
        ):  # fmt: skip
            out.update(np.ascontiguousarray(values, dtype=dtype).data)
    for name in model_schema.DENSE:
        for values in (state.dense[name], state.dense_optimizer[name]):
            out.update(np.ascontiguousarray(values, dtype=columns.F32).data)
    out.update(_place(state).encode())
    return out.digest()


def _place(state: ModelState) -> str:
    offsets = ",".join(f"{p}:{state.sample_offsets[p]}" for p in sorted(state.sample_offsets))
    barriers = ",".join(f"{b}:{sorted(parts)}" for b, parts in sorted(state.open_barriers.items()))
    return f"{state.sequence} {offsets} {state.samples_trained} {state.trained_until_us} {barriers}"


def _grown(values: NDArray, rows: int) -> NDArray:
    if rows <= values.shape[0]:
        return values
    grown = np.zeros((max(rows, values.shape[0] * 2), *values.shape[1:]), dtype=values.dtype)
    grown[: values.shape[0]] = values
    return grown
