"""The rows that one step works on: taken out of the tables, changed aside, and put back only when the step
is good.

Admission: an id gets a row when it has been seen often enough (in samples); until then it is pending and
scores as zeros. So a rare id costs 20 bytes, not a row, and what is trained is what will be served.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.contract import model_schema
from services.contract.id_table import IdTable
from services.contract.model_schema import ModelShape
from services.contract.model_state import zero_dense
from services.contract.model_table import TableState

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = np.uint64(0x9E3779B97F4A7C15)


@dataclass
class WorkingRows:
    """The distinct ids [u] of a step in one table, with their rows as they are before it.

    ``inverse`` [n]: the place of each sample row's id. ``live`` [u]: has a row after this step. ``rows`` and
    ``optimizer`` are copies; ids without a row hold zeros.
    """

    table: str
    ids: NDArray[np.uint64]
    inverse: NDArray[np.int64]
    live: NDArray[np.bool_]
    slots: NDArray[np.int64]
    rows: NDArray[np.float32]
    optimizer: NDArray[np.float32]
    counts: NDArray[np.uint32]
    last_seen_us: NDArray[np.int64]
    # Ids left without a row or a place among the pending because of a limit.
    refused: int


def take(
    table: str,
    held: TableState,
    ids: NDArray[np.uint64],
    occurred_us: NDArray[np.int64],
    *,
    min_count: int,
    max_rows: int,
    max_pending: int,
    init_scale: float,
) -> WorkingRows:
    """The working rows of sample ids [n]; changes nothing."""
    # Numbered as they come: a quarter of what sorting them for np.unique takes.
    inverse = IdTable(len(ids)).insert(ids)
    seen = np.bincount(inverse)
    distinct = np.empty(len(seen), np.uint64)
    distinct[inverse] = ids
    last = np.zeros(len(distinct), np.int64)
    np.maximum.at(last, inverse, occurred_us)
    slots = held.slots(distinct)
    there = slots > 0
    pending_counts, pending_last = held.pending.get(distinct)
    before = np.where(there, held.counts[slots], pending_counts).astype(np.int64)
    counts = np.minimum(before + seen, 0xFFFFFFFF).astype(np.uint32)
    new = ~there & (counts >= min_count)
    room = max(0, max_rows - len(held))
    refused = max(0, int(new.sum()) - room)
    if refused:
        new &= np.cumsum(new) <= room
    rows, optimizer = held.rows[slots], held.optimizer[slots]
    if new.any():
        rows[new] = initial_rows(distinct[new], table, init_scale)
    live = there | new
    # Counts of 0 mark ids that are not to be remembered.
    fresh = ~live & (pending_counts == 0)
    over = fresh & (np.cumsum(fresh) > max(0, max_pending - len(held.pending)))
    counts[over] = 0
    last = np.maximum(last, np.where(there, held.last_seen_us[slots], pending_last))
    return WorkingRows(
        table, distinct, inverse, live, slots, rows, optimizer, counts, last,
        refused + int(over.sum()),
    )  # fmt: skip


def put(held: TableState, work: WorkingRows) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Writes the working rows back; returns (ids with changed rows, ids whose pending entry changed)."""
    live = work.live
    new = live & (work.slots == 0)
    slots = held.add(work.ids[live])
    held.write(slots, work.rows[live], work.optimizer[live], work.counts[live], work.last_seen_us[live])
    waiting = ~live
    changed = waiting & (work.counts > 0)
    if new.any():
        was_pending = held.pending.get(work.ids)[0] > 0
        leaving = new & was_pending
        held.pending.set(
            work.ids[leaving], np.zeros(int(leaving.sum()), np.uint32), work.last_seen_us[leaving]
        )
        changed |= leaving
    keep = waiting & (work.counts > 0)
    held.pending.set(work.ids[keep], work.counts[keep], work.last_seen_us[keep])
    return work.ids[live], work.ids[changed]


def initial_rows(ids: NDArray[np.uint64], table: str, scale: float) -> NDArray[np.float32]:
    """The first values of new ids [n, ROW_WIDTH]: factors uniform in +-scale from a hash of table, id and
    column (splitmix64), biases 0."""
    rows = np.zeros((len(ids), model_schema.ROW_WIDTH), np.float32)
    salt = np.uint64(model_schema.TABLES.index(table) + 1)
    for part in (model_schema.FM, model_schema.RECALL):
        column = np.arange(part.start, part.stop, dtype=np.uint64) + salt * np.uint64(1_000)
        mixed = ids[:, None] + (column + np.uint64(1)) * _STEP
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[0]
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[1]
        mixed ^= mixed >> np.uint64(31)
        unit = (mixed >> np.uint64(40)).astype(np.float64) / float(1 << 24)
        rows[:, part.slice] = ((unit * 2 - 1) * scale).astype(np.float32)
    return rows


def initial_dense(shape: ModelShape, seed: int) -> dict[str, NDArray[np.float32]]:
    """The first values of the dense tensors: uniform by fan-in (He) for the hidden layers, small for the
    output, else 0."""
    random = np.random.Generator(np.random.PCG64(seed))
    dense = zero_dense(shape)
    for name, gain in (("hidden1.weight", 6.0), ("hidden2.weight", 6.0), ("output.weight", 0.06)):
        size = shape.dense[name]
        bound = (gain / size[1]) ** 0.5
        dense[name] = random.uniform(-bound, bound, size).astype(np.float32)
    return dense
