"""The rows of the evidence: what a run leaves in out/evidence/*.parquet, one table a file.

Columns that end in _us are wall microseconds, except occurred_us, impressed_us, acted_us and those of
scenarios: these are event time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

_ARROW = {
    "str": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "bytes": pa.binary(),
}
_UNSIGNED = {"user_id", "item_id"}


@dataclass(frozen=True)
class RequestRow:
    """One intended request and its answer, with provenance."""

    FILE: ClassVar[str] = "requests"
    request_id: str
    user_id: int
    intended_us: int
    sent_us: int
    answered_us: int
    status: str
    arm: str
    generation: int
    policy: str
    sequence: int
    applied_us: int
    staleness_us: int
    served_us: int
    scored: bool
    candidates: int
    degraded: str
    replica: str
    # Mean true click probability of the ten shown, of the ten that the frozen arm chose, of the best ten
    # of the answer by truth; set only where the run measured it.
    shown_true_p: float | None = None
    frozen_true_p: float | None = None
    ideal_true_p: float | None = None
    # Not a person: clicks by a rule of its own, has no true click probability.
    bot: bool = False
    # Of the shown items by position, float32 LE each: true click probability, age in seconds.
    shown_p: bytes = b""
    shown_age_s: bytes = b""


@dataclass(frozen=True)
class AckRow:
    """One event that the collector acknowledged."""

    FILE: ClassVar[str] = "events"
    event_id: str
    request_id: str
    kind: str
    # 0 for impressions.
    item_id: int
    # Shown items of an impression, 1 of a click.
    items: int
    occurred_us: int
    sent_us: int
    acknowledged_us: int


@dataclass(frozen=True)
class SampleRow:
    """One row of one record on samples."""

    FILE: ClassVar[str] = "samples"
    request_id: str
    item_id: int
    label: float
    label_version: int
    position: int
    score: float
    partition: int
    offset: int
    appended_us: int
    joined_us: int
    impressed_us: int
    acted_us: int
    scored_us: int
    generation: int
    sequence: int
    arm: str


@dataclass(frozen=True)
class RejectedRow:
    """One record on late-events or dead-letters."""

    FILE: ClassVar[str] = "rejected"
    topic: str
    reason: str
    origin_topic: str
    origin_partition: int
    origin_offset: int
    # Shown items that it accounts for; 0 for actions.
    items: int


@dataclass(frozen=True)
class DeltaRow:
    """One record on model-deltas. JSON: offsets {partition: offset}, steps [[finished_us, offsets], ...]."""

    FILE: ClassVar[str] = "deltas"
    generation: int
    policy: str
    sequence: int
    epoch: int
    hash: str
    previous_hash: str
    created_us: int
    appended_us: int
    rows: int
    bytes: int
    samples_trained: int
    offsets: str
    steps: str
    barrier_ids: str


@dataclass(frozen=True)
class AppliedRow:
    """One delta that a replica of ranking applied for the arm online."""

    FILE: ClassVar[str] = "applied"
    replica: str
    arm: str
    generation: int
    policy: str
    sequence: int
    created_us: int
    applied_us: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class DecisionRow:
    """One record on release-events; ``evidence``: JSON, what it was decided by."""

    FILE: ClassVar[str] = "decisions"
    arm: str
    decided_us: int
    decision: str
    evidence: str
    revision: int


@dataclass(frozen=True)
class ScenarioRow:
    """A time in which a scenario was on: event time, and seconds of the world's own time. One that
    was on at the end of the load ends with it."""

    FILE: ClassVar[str] = "scenarios"
    name: str
    from_us: int
    until_us: int
    from_s: float
    until_s: float


EvidenceRow = (
    RequestRow | AckRow | SampleRow | RejectedRow | DeltaRow | AppliedRow | DecisionRow | ScenarioRow
)
ROW_TYPES: tuple[type[EvidenceRow], ...] = (
    RequestRow,
    AckRow,
    SampleRow,
    RejectedRow,
    DeltaRow,
    AppliedRow,
    DecisionRow,
    ScenarioRow,
)


def schema(row_type: type[EvidenceRow]) -> pa.Schema:
    """The Arrow schema of a row type; user and item ids are uint64."""
    columns = []
    for column in fields(row_type):
        base = str(column.type).split(" | ")[0]
        kind = pa.uint64() if column.name in _UNSIGNED else _ARROW[base]
        columns.append(pa.field(column.name, kind))
    return pa.schema(columns)


class RowFile:
    """A Parquet file that grows by row groups; only a closed file can be read."""

    GROUP_ROWS = 20_000

    def __init__(self, folder: Path, row_type: type[EvidenceRow]) -> None:
        self.path = folder / f"{row_type.FILE}.parquet"
        self._schema = schema(row_type)
        self._writer = pq.ParquetWriter(self.path, self._schema, compression="zstd")
        self._rows: list[tuple[Any, ...]] = []
        self.count = 0

    def add(self, row: EvidenceRow) -> None:
        """Appends one row."""
        self._rows.append(tuple(vars(row).values()))
        self.count += 1
        if len(self._rows) >= self.GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Writes what has been added as one row group."""
        if not self._rows:
            return
        columns = list(zip(*self._rows, strict=True))
        arrays = [
            pa.array(values, type=kind.type) for values, kind in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows.clear()

    def close(self) -> None:
        """Flushes and writes the footer."""
        self.flush()
        self._writer.close()
