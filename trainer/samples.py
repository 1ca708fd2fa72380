"""Records of samples to columns: each record is checked by itself, and what is wrong with it has a name.

reason              what
undecodable         not a SampleRecord
empty               neither a sample with rows nor a barrier
schema_hash         features encoded under another schema
columns             a column of the wrong length, or more rows than allowed
not_finite          NaN or infinity among features or scores
label               a label that is neither 0 nor 1
label_version       a correction: this trainer takes first labels only
sample_rate         not in (0, 1]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from rec.events.v1.events_pb2 import SampleRecord, TrainingSample
from services.contract import columns, features, times

_ITEM_BYTES = features.ITEM_WIDTH * 4
_USER_BYTES = features.USER_WIDTH * 4


@dataclass(frozen=True)
class RawRecord:
    """A record of the samples topic as it was read."""

    partition: int
    offset: int
    value: bytes
    key: bytes | None = None


@dataclass(frozen=True)
class Bad:
    """A record that is not trained, and why."""

    record: RawRecord
    reason: str


@dataclass(frozen=True)
class BarrierSeen:
    """A barrier read from one partition."""

    barrier_id: str
    partition: int


@dataclass(frozen=True)
class Batch:
    """Columns of n rows from r records; ``owner`` [n] is the record of each row, ``records`` their
    originals."""

    records: list[RawRecord]
    owner: NDArray[np.int64]
    user_ids: NDArray[np.uint64]
    item_ids: NDArray[np.uint64]
    labels: NDArray[np.float32]
    scores: NDArray[np.float32]
    positions: NDArray[np.int64]
    # Of the loss: a kept negative stands for 1 / sample_rate of them.
    weights: NDArray[np.float32]
    user_features: NDArray[np.float32]
    item_features: NDArray[np.float32]
    occurred_us: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, start: int, stop: int) -> Batch:
        """Rows [start, stop); ``owner`` still points into all ``records``."""
        cut = slice(start, stop)
        return Batch(
            self.records, self.owner[cut], self.user_ids[cut], self.item_ids[cut], self.labels[cut],
            self.scores[cut], self.positions[cut], self.weights[cut], self.user_features[cut],
            self.item_features[cut], self.occurred_us[cut],
        )  # fmt: skip

    def split(self, rows: int) -> list[Batch]:
        """Parts of about ``rows`` rows that never cut a record: each has at most ``rows``, or one record."""
        parts: list[Batch] = []
        starts = np.flatnonzero(np.diff(self.owner, prepend=-1))
        start, previous = 0, 0
        for edge in [*starts[1:].tolist(), len(self)]:
            if edge - start > rows and previous > start:
                parts.append(self.rows(start, previous))
                start = previous
            previous = edge
        if start < len(self):
            parts.append(self.rows(start, len(self)))
        return parts


@dataclass(frozen=True)
class Decoded:
    """What came of some records: a batch (or none), barriers in order, bad records."""

    batch: Batch | None
    barriers: list[BarrierSeen]
    bad: list[Bad]


def decode(raw: Sequence[RawRecord], max_rows: int = 1_000) -> Decoded:
    """Decodes and checks records; never raises because of what stands in one."""
    barriers: list[BarrierSeen] = []
    bad: list[Bad] = []
    records: list[RawRecord] = []
    samples: list[TrainingSample] = []
    for record in raw:
        try:
            message = SampleRecord.FromString(record.value)
        except DecodeError:
            bad.append(Bad(record, "undecodable"))
            continue
        if message.HasField("barrier") and message.barrier.barrier_id:
            barriers.append(BarrierSeen(message.barrier.barrier_id, record.partition))
            continue
        reason = _wrong(message.sample, max_rows) if message.HasField("sample") else "empty"
        if reason:
            bad.append(Bad(record, reason))
        else:
            records.append(record)
            samples.append(message.sample)
    batch = _join(records, samples) if records else None
    if batch is not None:
        found = _bad_values(batch, samples)
        bad.extend(Bad(records[index], reason) for index, reason in found.items())
        if found:
            kept = [index for index in range(len(records)) if index not in found]
            batch = _join([records[i] for i in kept], [samples[i] for i in kept]) if kept else None
    return Decoded(batch, barriers, bad)


def _wrong(sample: TrainingSample, max_rows: int) -> str | None:
    rows = len(sample.item_ids) // 8
    if rows == 0:
        return "empty"
    if sample.schema_hash != features.SCHEMA_HASH:
        return "schema_hash"
    fits = (
        rows <= max_rows
        and len(sample.item_ids) == rows * 8
        and len(sample.labels) == len(sample.positions) == len(sample.scores) == rows * 4
        and len(sample.label_versions) == rows * 4
        and len(sample.item_features) == rows * _ITEM_BYTES
        and len(sample.user_features) == _USER_BYTES
    )
    if not fits:
        return "columns"
    if sample.label_versions.count(0) != rows * 4:
        return "label_version"
    return None if 0 < sample.sample_rate <= 1 else "sample_rate"


def _join(records: list[RawRecord], samples: list[TrainingSample]) -> Batch:
    counts = np.array([len(sample.item_ids) // 8 for sample in samples])
    owner = np.repeat(np.arange(len(samples)), counts)

    def column(field: str, dtype: np.dtype) -> NDArray:
        # A bytearray: torch wants memory that it could write to.
        return np.frombuffer(bytearray().join([getattr(sample, field) for sample in samples]), dtype)

    labels = column("labels", columns.F32)
    rates = np.array([sample.sample_rate for sample in samples], np.float32)[owner]
    users = column("user_features", columns.F32).reshape(-1, features.USER_WIDTH)
    return Batch(
        records=records,
        owner=owner,
        user_ids=np.array([sample.user_id for sample in samples], np.uint64)[owner],
        item_ids=column("item_ids", columns.U64),
        labels=labels,
        scores=column("scores", columns.F32),
        positions=column("positions", columns.U32).astype(np.int64),
        weights=np.where(labels > 0, np.float32(1), 1 / rates).astype(np.float32),
        user_features=users[owner],
        item_features=column("item_features", columns.F32).reshape(-1, features.ITEM_WIDTH),
        occurred_us=np.array([times.to_us(sample.occurred_at) for sample in samples], np.int64)[owner],
    )


def _bad_values(batch: Batch, samples: list[TrainingSample]) -> dict[int, str]:
    finite = np.isfinite(batch.user_features).all(1) & np.isfinite(batch.item_features).all(1)
    finite &= np.isfinite(batch.scores)
    binary = (batch.labels == 0) | (batch.labels == 1)
    found = {int(index): "label" for index in np.unique(batch.owner[~binary])}
    return found | {int(index): "not_finite" for index in np.unique(batch.owner[~finite])}
