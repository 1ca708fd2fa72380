"""What a delta says, in plain types, and the checks that every delta passes: where it is written and where
it is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.contract import columns, model_schema, topics
from services.contract.errors import FieldViolation, MalformedRecord
from services.contract.model_schema import ModelShape

HASH_BYTES = 32
# What Kafka adds around a value stays far below this.
RECORD_OVERHEAD = 16 * 1024
MAX_DELTA_BYTES = topics.MAX_RECORD_BYTES - RECORD_OVERHEAD
# One row of a TableDelta: id, row, optimizer, count, last seen.
BYTES_PER_ROW = 8 + 4 * model_schema.ROW_WIDTH + 4 * model_schema.OPTIMIZER_WIDTH + 4 + 8


class BadDelta(MalformedRecord):
    """No valid delta; ``reason`` is one of the names in contract.delta."""

    def __init__(self, reason: str, violations: list[FieldViolation]) -> None:
        super().__init__(violations)
        self.reason = reason


@dataclass(frozen=True)
class Step:
    """One training step: when it ended (wall time) and the next sample offset of each partition then."""

    finished_at_us: int
    sample_offsets: Mapping[int, int]


@dataclass(frozen=True)
class RolledBack:
    """What a delta that takes its lineage back says of it; ranges are (partition, start, end) of samples."""

    order: int
    restored_sequence: int
    quarantined: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class Header:
    """DeltaHeader with plain types; times in microseconds. See the proto for each field. ``created_at_us`` is
    never before that of the delta before: a trainer's clock may go back, its chain does not."""

    generation: int
    policy: str
    sequence: int
    epoch: int
    previous_hash: bytes
    created_at_us: int
    model_hash: int
    sample_offsets: Mapping[int, int] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    samples_trained: int = 0
    barrier_ids: tuple[str, ...] = ()
    trained_until_us: int = 0
    open_barriers: Mapping[str, frozenset[int]] = field(default_factory=dict)
    rollback: RolledBack | None = None

    @property
    def lineage(self) -> tuple[int, str]:
        """(generation, policy)."""
        return (self.generation, self.policy)


def _ids() -> NDArray[np.uint64]:
    return np.empty(0, dtype=columns.U64)


def _counts() -> NDArray[np.uint32]:
    return np.empty(0, dtype=columns.U32)


def _times() -> NDArray[np.int64]:
    return np.empty(0, dtype=columns.I64)


@dataclass(frozen=True)
class TableChange:
    """New values of n rows of one table, ids that left, and m changed pending admissions.

    Shapes: ids [n], rows [n, ROW_WIDTH], optimizer [n, OPTIMIZER_WIDTH], counts [n], last_seen_us [n];
    expired_ids [k]; pending_* [m], where a count of 0 forgets the id.
    """

    table: str
    ids: NDArray[np.uint64] = field(default_factory=_ids)
    rows: NDArray[np.float32] = field(
        default_factory=lambda: np.empty((0, model_schema.ROW_WIDTH), columns.F32)
    )
    optimizer: NDArray[np.float32] = field(
        default_factory=lambda: np.empty((0, model_schema.OPTIMIZER_WIDTH), columns.F32)
    )
    counts: NDArray[np.uint32] = field(default_factory=_counts)
    last_seen_us: NDArray[np.int64] = field(default_factory=_times)
    expired_ids: NDArray[np.uint64] = field(default_factory=_ids)
    pending_ids: NDArray[np.uint64] = field(default_factory=_ids)
    pending_counts: NDArray[np.uint32] = field(default_factory=_counts)
    pending_last_seen_us: NDArray[np.int64] = field(default_factory=_times)


@dataclass(frozen=True)
class DenseChange:
    """New values of one dense tensor and its optimizer state, both of one shape (ModelShape.dense)."""

    name: str
    values: NDArray[np.float32]
    optimizer: NDArray[np.float32]


@dataclass(frozen=True)
class Body:
    """What changes; at most one TableChange per table and one DenseChange per tensor."""

    tables: tuple[TableChange, ...] = ()
    dense: tuple[DenseChange, ...] = ()

    @property
    def rows(self) -> int:
        """Rows with new values, over all tables."""
        return sum(len(table.ids) for table in self.tables)


def check_header(header: Header) -> None:
    """BadDelta("bad_header") when a field is out of range."""
    _raise_if("bad_header", _header_violations(header))


def check_body(body: Body) -> None:
    """BadDelta("bad_body") when the columns do not fit together."""
    _raise_if("bad_body", _body_violations(body))


def check_shapes(body: Body, shape: ModelShape) -> None:
    """BadDelta("bad_body") when a dense tensor is not one of a model's."""
    wrong = (
        FieldViolation(f"{tensor.name}.values", str(tensor.values.shape), str(shape.dense[tensor.name]))
        for tensor in body.dense
        if tensor.values.shape != shape.dense[tensor.name]
    )
    _raise_if("bad_body", wrong)


def _raise_if(reason: str, violations: Iterable[FieldViolation]) -> None:
    found = list(violations)
    if found:
        raise BadDelta(reason, found)


def _header_violations(header: Header) -> Iterator[FieldViolation]:
    if header.generation < 1:
        yield FieldViolation("lineage.generation", str(header.generation), "at least 1")
    if not header.policy:
        yield FieldViolation("lineage.policy", "", "a name")
    if header.sequence < 1:
        yield FieldViolation("sequence", str(header.sequence), "at least 1")
    if header.epoch < 1:
        yield FieldViolation("epoch", str(header.epoch), "at least 1")
    back = header.rollback
    if back is not None and back.restored_sequence >= header.sequence:
        wanted = f"below {header.sequence}"
        yield FieldViolation("rollback.restored_sequence", str(back.restored_sequence), wanted)
    if len(header.previous_hash) != HASH_BYTES:
        yield FieldViolation("previous_hash", f"{len(header.previous_hash)} bytes", f"{HASH_BYTES} bytes")


def _body_violations(body: Body) -> Iterator[FieldViolation]:
    names = [table.table for table in body.tables]
    if len(set(names)) != len(names) or not set(names) <= set(model_schema.TABLES):
        yield FieldViolation("tables", str(names), f"each at most once, of {model_schema.TABLES}")
    for table in body.tables:
        yield from _table_violations(table)
    names = [tensor.name for tensor in body.dense]
    if len(set(names)) != len(names) or not set(names) <= set(model_schema.DENSE):
        yield FieldViolation("dense", str(names), f"each at most once, of {model_schema.DENSE}")
        return
    for tensor in body.dense:
        if tensor.optimizer.shape != tensor.values.shape:
            wanted = f"{tensor.values.shape}, as its values"
            yield FieldViolation(f"{tensor.name}.optimizer", str(tensor.optimizer.shape), wanted)
        for part, values in (("values", tensor.values), ("optimizer", tensor.optimizer)):
            if not np.isfinite(values).all():
                yield FieldViolation(f"{tensor.name}.{part}", "NaN or infinity", "finite values")


def _table_violations(table: TableChange) -> Iterator[FieldViolation]:
    name, n, m = table.table, len(table.ids), len(table.pending_ids)
    shapes = (
        ("rows", table.rows, (n, model_schema.ROW_WIDTH)),
        ("optimizer", table.optimizer, (n, model_schema.OPTIMIZER_WIDTH)),
        ("counts", table.counts, (n,)),
        ("last_seen_us", table.last_seen_us, (n,)),
        ("pending_counts", table.pending_counts, (m,)),
        ("pending_last_seen_us", table.pending_last_seen_us, (m,)),
    )
    for part, values, shape in shapes:
        if values.shape != shape:
            yield FieldViolation(f"{name}.{part}", str(values.shape), str(shape))
    for part, ids in (
        ("ids", table.ids),
        ("expired_ids", table.expired_ids),
        ("pending_ids", table.pending_ids),
    ):
        if not np.all(ids[1:] > ids[:-1]):
            yield FieldViolation(f"{name}.{part}", "repeated or unordered", "ascending, each once")
    if np.intersect1d(table.ids, table.expired_ids, assume_unique=True).size:
        yield FieldViolation(f"{name}.expired_ids", "an id with new values", "ids that left")
    if not np.isfinite(table.rows).all():
        yield FieldViolation(f"{name}.rows", "NaN or infinity", "finite values")
    if not (np.isfinite(table.optimizer).all() and (table.optimizer >= 0).all()):
        yield FieldViolation(f"{name}.optimizer", "NaN, infinity or negative", "finite, not negative")
