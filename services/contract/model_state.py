"""The state of a model: embedding tables, dense tensors, and the place in the chain that they stand for.

The trainer's own state, a base in the model store and base + deltas in ranking are this same thing, and
have the same digest at every sequence. Numpy only.

Not thread-safe: whoever applies a delta and whoever reads take turns on one thread. What has to be read for
seconds is frozen first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from services.contract import columns, model_schema
from services.contract.delta import HASH_BYTES, Body, Header, check_body, check_shapes
from services.contract.errors import Conflict
from services.contract.model_frozen import PENDING_COLUMNS, TABLE_COLUMNS
from services.contract.model_schema import ModelShape
from services.contract.model_table import TableState

# Of a table, in the order of digests.
PARTS: dict[str, np.dtype] = {
    "ids": columns.U64,
    **dict(zip(TABLE_COLUMNS, (columns.F32, columns.F32, columns.U32, columns.I64), strict=True)),
    **dict(zip(PENDING_COLUMNS, (columns.U64, columns.U32, columns.I64), strict=True)),
}


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


class Frozen:
    """A state as it is now, while the state itself goes on (contract.model_frozen); made where that one is
    written. ``head``: all of it but its tables. ``close`` it when it is no longer needed: until then it keeps
    what changes."""

    def __init__(self, state: ModelState) -> None:
        self.tables = {name: table.freeze() for name, table in state.tables.items()}
        self.head = replace(
            state,
            tables={},
            sample_offsets=dict(state.sample_offsets),
            open_barriers=dict(state.open_barriers),
            dense={name: values.copy() for name, values in state.dense.items()},
            dense_optimizer={name: values.copy() for name, values in state.dense_optimizer.items()},
        )

    @property
    def rows_kept(self) -> int:
        """Rows that have changed since."""
        return sum(table.rows_kept for table in self.tables.values())

    def part(self, table: str, name: str) -> Iterator[NDArray]:
        """One of PARTS of a table, in its canonical dtype, some thousand rows at a time."""
        held = self.tables[table]
        if name in TABLE_COLUMNS:
            found = held.column(name)
        else:
            found = iter((held.ids if name == "ids" else held.pending[name],))
        return (np.ascontiguousarray(values, dtype=PARTS[name]) for values in found)

    def shape(self, table: str, name: str) -> tuple[int, ...]:
        """Of one of PARTS of a table."""
        held = self.tables[table]
        if name in PENDING_COLUMNS:
            return held.pending[name].shape
        widths = {"rows": (model_schema.ROW_WIDTH,), "optimizer": (model_schema.OPTIMIZER_WIDTH,)}
        return (len(held), *widths.get(name, ()))

    def close(self) -> None:
        """Lets go of the tables."""
        self.tables.clear()


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


def digest(state: ModelState | Frozen, breathe: Callable[[], None] = lambda: None) -> bytes:
    """SHA-256 over the canonical form: the shape's hash, every table by ascending id with optimizer, counts,
    times and pending ids, every dense tensor with its optimizer, sequence, sample offsets, samples trained,
    event clock, open barriers.

    Lineage, epoch and chain hash are the chain's to prove, and stay out. ``breathe`` is called between two
    pieces of work.
    """
    frozen = Frozen(state) if isinstance(state, ModelState) else state
    head = frozen.head
    out = hashlib.sha256(f"{head.shape.model_hash:016x}\n".encode())
    for name in model_schema.TABLES:
        table = frozen.tables[name]
        out.update(f"{name} {len(table)} {len(table.pending['pending_ids'])}\n".encode())
        for part in PARTS:
            for values in frozen.part(name, part):
                out.update(values.data)
                breathe()
    for name in model_schema.DENSE:
        for values in (head.dense[name], head.dense_optimizer[name]):
            out.update(np.ascontiguousarray(values, dtype=columns.F32).data)
    out.update(_place(head).encode())
    return out.digest()


def _place(state: ModelState) -> str:
    offsets = ",".join(f"{p}:{state.sample_offsets[p]}" for p in sorted(state.sample_offsets))
    barriers = ",".join(f"{b}:{sorted(parts)}" for b, parts in sorted(state.open_barriers.items()))
    return f"{state.sequence} {offsets} {state.samples_trained} {state.trained_until_us} {barriers}"
