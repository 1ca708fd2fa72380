"""Records of samples to columns: each record is checked by itself, and what is wrong with it has a name.

reason              what
undecodable         not a SampleRecord
empty               neither a sample with rows nor a barrier
schema_hash         features encoded under a schema that nobody knows
columns             a column of the wrong length, or more rows than allowed
not_finite          NaN or infinity among features or scores
label               a label outside [0, 1]
label_version       a correction, and the loss takes first labels only (``log``)
lowered             a correction to label 0: what was learned of the positive cannot be taken back
corrected_again     a second correction: the label it replaces is not on it, and would count twice
sample_rate         not in (0, 1]
other_rate          negatives kept at another rate than the negative_rate that the settings declare

A record of a set without a column that the model sees is not wrong: it is left out, and counted
(trainer/sample_columns.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from rec.events.v1.events_pb2 import SampleRecord, TrainingSample
from services.contract import columns, times
from services.contract.join_labels import keeps_negative
from services.contract.model_schema import ModelShape
from services.contract.trace_ids import SpanRef
from trainer.sample_columns import Known, SampleColumns, Source
from trainer.settings import LearningSettings

_FIRST_LABELS = LearningSettings()


@dataclass(frozen=True)
class RawRecord:
    """A record of the samples topic as it was read."""

    partition: int
    offset: int
    value: bytes
    key: bytes | None = None
    # When the joiner sent it, as the record says; 0 = not told.
    sent_us: int = 0
    # That it came from, when its request is traced (trainer/traces.py).
    span: SpanRef | None = None


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
    occurred_us: int


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
    # How many negatives a row stands for; fnw needs the same of positives (``_stands_for``).
    negatives: NDArray[np.float32]
    user_features: NDArray[np.float32]
    item_features: NDArray[np.float32]
    occurred_us: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def corrections(self) -> NDArray[np.bool_]:
        """Which rows are positives whose impression was said as a negative before, or stood for by those
        that were kept [n]."""
        return self.negatives == 0

    def digest(self) -> str:
        """SHA-256 of all columns, in hex: whether two processes have read the same rows."""
        found = hashlib.sha256()
        for values in (value for name, value in vars(self).items() if name != "records"):
            found.update(np.ascontiguousarray(values).data)
        return found.hexdigest()

    def rows(self, start: int, stop: int) -> Batch:
        """Rows [start, stop); ``owner`` still points into all ``records``."""
        cut = slice(start, stop)
        return Batch(
            self.records, self.owner[cut], self.user_ids[cut], self.item_ids[cut], self.labels[cut],
            self.scores[cut], self.positions[cut], self.negatives[cut], self.user_features[cut],
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
    """What came of some records: a batch (or none), barriers in order, bad records. ``lacking``: records left
    out because they lack columns of the model; ``unknown``: schema hashes for which records are bad."""

    batch: Batch | None
    barriers: list[BarrierSeen]
    bad: list[Bad]
    lacking: int = 0
    unknown: frozenset[int] = frozenset()


def is_barrier(value: bytes) -> bool:
    """Whether a record is a barrier; what cannot be decoded is none."""
    try:
        return bool(SampleRecord.FromString(value).HasField("barrier"))
    except DecodeError:
        return False


def decode(
    raw: Sequence[RawRecord],
    shape: ModelShape,
    max_rows: int = 1_000,
    learning: LearningSettings = _FIRST_LABELS,
    known: Known | None = None,
) -> Decoded:
    """Decodes and checks records for a model of ``shape``; never raises because of what stands in one.
    ``learning`` says whether corrections can be trained and which rate negatives must have, ``known`` under
    which other feature sets samples may have been logged."""
    features = SampleColumns(shape, known)
    lacking, unknown = 0, set[int]()
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
            said = message.barrier
            barriers.append(BarrierSeen(said.barrier_id, record.partition, times.to_us(said.occurred_at)))
            continue
        source = features.source(message.sample.schema_hash)
        reason = _wrong(message.sample, source, max_rows) or _untrainable(message.sample, learning)
        if reason:
            bad.append(Bad(record, reason))
            if reason == "schema_hash":
                unknown.add(message.sample.schema_hash)
        elif features.lacks(message.sample.schema_hash):
            lacking += 1
        else:
            records.append(record)
            samples.append(message.sample)
    batch = _join(records, samples, features, learning) if records else None
    if batch is not None:
        found = _bad_values(batch, samples)
        bad.extend(Bad(records[index], reason) for index, reason in found.items())
        if found:
            kept = [index for index in range(len(records)) if index not in found]
            rest = [records[i] for i in kept], [samples[i] for i in kept]
            batch = _join(*rest, features, learning) if kept else None
    return Decoded(batch, barriers, bad, lacking, frozenset(unknown))


def _wrong(sample: TrainingSample, source: Source | None, max_rows: int) -> str | None:
    rows = len(sample.item_ids) // 8
    # Also what a record without a sample looks like.
    if rows == 0:
        return "empty"
    if source is None:
        return "schema_hash"
    fits = (
        rows <= max_rows
        and len(sample.item_ids) == rows * 8
        and len(sample.labels) == len(sample.positions) == len(sample.scores) == rows * 4
        and len(sample.label_versions) == rows * 4
        and len(sample.item_features) == rows * 4 * source.shape.item_width
        and len(sample.user_features) == 4 * source.shape.user_width
    )
    if not fits:
        return "columns"
    return None if 0 < sample.sample_rate <= 1 else "sample_rate"


def _untrainable(sample: TrainingSample, learning: LearningSettings) -> str | None:
    labels = np.frombuffer(sample.labels, columns.F32)
    rate = learning.expected_rate
    if rate is not None and sample.sample_rate != np.float32(rate) and (labels == 0).any():
        return "other_rate"
    if sample.label_versions.count(0) == len(sample.label_versions):
        return None
    if learning.loss == "log":
        return "label_version"
    versions = np.frombuffer(sample.label_versions, columns.U32)
    if (versions > 1).any():
        return "corrected_again"
    return "lowered" if (labels[versions > 0] == 0).any() else None


def _join(
    records: list[RawRecord],
    samples: list[TrainingSample],
    features: SampleColumns,
    learning: LearningSettings,
) -> Batch:
    hashes = np.array([sample.schema_hash for sample in samples], np.uint64)
    counts = np.array([len(sample.item_ids) // 8 for sample in samples])
    owner = np.repeat(np.arange(len(samples)), counts)

    def column(field: str, dtype: np.dtype) -> NDArray:
        # A bytearray: torch wants memory that it could write to.
        return np.frombuffer(bytearray().join([getattr(sample, field) for sample in samples]), dtype)

    labels, item_ids = column("labels", columns.F32), column("item_ids", columns.U64)
    rates = np.array([sample.sample_rate for sample in samples], np.float32)[owner]
    negatives = np.where(labels > 0, 1, 1 / rates).astype(np.float32)
    if learning.loss == "fnw":
        negatives[column("label_versions", columns.U32) > 0] = 0
        first = (labels > 0) & (negatives > 0) & (learning.negative_rate < 1)
        for row in np.flatnonzero(first).tolist():
            request_id = samples[owner[row]].request_id
            negatives[row] = _stands_for(request_id, int(item_ids[row]), learning.negative_rate)
    users = features.users(hashes, [sample.user_features for sample in samples])
    return Batch(
        records=records,
        owner=owner,
        user_ids=np.array([sample.user_id for sample in samples], np.uint64)[owner],
        item_ids=item_ids,
        labels=labels,
        scores=column("scores", columns.F32),
        positions=column("positions", columns.U32).astype(np.int64),
        negatives=negatives,
        user_features=users[owner],
        item_features=features.items(hashes, [sample.item_features for sample in samples]),
        occurred_us=np.array([times.to_us(sample.occurred_at) for sample in samples], np.int64)[owner],
    )


def _stands_for(request_id: str, item_id: int, rate: float) -> float:
    """How many negatives a positive that is a first label stands for under ``fnw``.

    A correction stands for none: its negative was said before. A first label is either early, before any
    negative was said, or late and its negative was left out; of a fair share ``rate`` of all impressions the
    negative would have been kept, and in that share every positive that comes as a first label is early.
    """
    return 1 / rate if keeps_negative(request_id, item_id, ceil(rate * (1 << 64))) else 0.0


def _bad_values(batch: Batch, samples: list[TrainingSample]) -> dict[int, str]:
    finite = np.isfinite(batch.user_features).all(1) & np.isfinite(batch.item_features).all(1)
    finite &= np.isfinite(batch.scores)
    # Written so that a NaN is outside.
    inside = (batch.labels >= 0) & (batch.labels <= 1)
    found = {int(index): "label" for index in np.unique(batch.owner[~inside])}
    return found | {int(index): "not_finite" for index in np.unique(batch.owner[~finite])}
