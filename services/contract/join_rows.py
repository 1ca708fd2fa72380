"""Cuts the shown rows out of a snapshot, and samples out of the shown rows. Bytes in, bytes out."""

from __future__ import annotations

import struct
from functools import lru_cache

from rec.events.v1 import events_pb2 as ev
from services.contract.times import set_us

_EMPTY = ev.TrainingSample()
_ZERO_U32 = b"\0\0\0\0"
_ZERO_F32 = struct.pack("<f", 0.0)


def find_row(item_ids: bytes, item: bytes) -> int:
    """Index of an 8-byte id in a column of them, -1 when it is not there."""
    at = item_ids.find(item)
    while at >= 0:
        if at % 8 == 0:
            return at // 8
        at = item_ids.find(item, at + 1)
    return -1


@lru_cache(maxsize=64)
def _in_order(count: int) -> bytes:
    return struct.pack(f"<{count}I", *range(count))


class ShownRows:
    """The scored rows of one impression, in the order shown. Columns are little-endian bytes."""

    __slots__ = ("absent", "features", "head", "ids", "positions", "row_bytes", "scores", "size")

    def __init__(self, snapshot: ev.FeatureSnapshot, impression: ev.Impression, impressed_us: int) -> None:
        count = len(impression.item_ids)
        packed = struct.pack(f"<{count}Q", *impression.item_ids)
        places = impression.positions
        positions = struct.pack(f"<{count}I", *places) if places else _in_order(count)
        served, scores, features = snapshot.item_ids, snapshot.scores, snapshot.item_features
        self.row_bytes = width = 8 * len(features) // len(served)
        if served.startswith(packed):
            # Shown are mostly the best of the served, in their order.
            self.size, self.absent, self.ids, self.positions = count, b"", packed, positions
            self.scores, self.features = scores[: 4 * count], features[: width * count]
        else:
            rows = [find_row(served, packed[8 * k : 8 * k + 8]) for k in range(count)]
            here = [k for k, row in enumerate(rows) if row >= 0]
            self.size = len(here)
            self.absent = b"".join([packed[8 * k : 8 * k + 8] for k, row in enumerate(rows) if row < 0])
            self.ids = b"".join([packed[8 * k : 8 * k + 8] for k in here])
            self.positions = b"".join([positions[4 * k : 4 * k + 4] for k in here])
            self.scores = b"".join([scores[4 * rows[k] : 4 * rows[k] + 4] for k in here])
            self.features = b"".join([features[width * rows[k] : width * (rows[k] + 1)] for k in here])
        head = ev.TrainingSample(
            request_id=snapshot.request_id,
            occurred_at=snapshot.occurred_at,
            user_id=snapshot.user_id,
            schema_hash=snapshot.schema_hash,
            arm=snapshot.arm,
            user_features=snapshot.user_features,
            sample_rate=1.0,
        )
        if snapshot.HasField("model"):
            head.model.CopyFrom(snapshot.model)
        if snapshot.HasField("scored_at"):
            head.scored_at.CopyFrom(snapshot.scored_at)
        set_us(head.impressed_at, impressed_us)
        self.head = head

    def item_ids(self) -> tuple[int, ...]:
        """The item of each row."""
        return struct.unpack(f"<{self.size}Q", self.ids)

    def bytes_held(self) -> int:
        """Size of the columns (without what Python adds)."""
        return len(self.ids) * 2 + len(self.features) + len(self.head.user_features)

    def drop(self) -> None:
        """Lets go of everything; what ``negatives`` gave stays whole."""
        self.ids = self.positions = self.scores = self.features = b""
        self.head = _EMPTY

    def positive(self, row: int, label: float, acted_us: int, version: int = 0) -> ev.TrainingSample:
        """The one row that an action has decided."""
        sample = ev.TrainingSample()
        sample.CopyFrom(self.head)
        sample.item_ids = self.ids[8 * row : 8 * row + 8]
        sample.labels = struct.pack("<f", label)
        sample.label_versions = struct.pack("<I", version) if version else _ZERO_U32
        sample.positions = self.positions[4 * row : 4 * row + 4]
        sample.scores = self.scores[4 * row : 4 * row + 4]
        sample.item_features = self.features[self.row_bytes * row : self.row_bytes * (row + 1)]
        set_us(sample.acted_at, acted_us)
        return sample

    def negatives(self, rows: list[int], rate: float, last: bool) -> ev.TrainingSample:
        """The given rows (ascending), decided by time. After the ``last`` call the caller does not use
        ``self`` again. ``rate``: share of the negatives that is kept."""
        sample, width = self.head, self.row_bytes
        if not last:
            sample = ev.TrainingSample()
            sample.CopyFrom(self.head)
        count = len(rows)
        if rate < 1.0:
            sample.sample_rate = rate
        sample.labels = _ZERO_F32 * count
        sample.label_versions = _ZERO_U32 * count
        if count == self.size:
            sample.item_ids, sample.positions = self.ids, self.positions
            sample.scores, sample.item_features = self.scores, self.features
        else:
            spans = _spans(rows)
            sample.item_ids = _cut(self.ids, 8, spans)
            sample.positions = _cut(self.positions, 4, spans)
            sample.scores = _cut(self.scores, 4, spans)
            sample.item_features = _cut(self.features, width, spans)
        return sample

    def ids_of(self, rows: list[int]) -> bytes:
        """The item ids of some rows, uint64 LE."""
        return _cut(self.ids, 8, _spans(rows))


def _spans(rows: list[int]) -> list[tuple[int, int]]:
    """Ascending rows as [first, end) of neighbours: all but a clicked one are two."""
    spans: list[tuple[int, int]] = []
    first = end = rows[0] if rows else 0
    for row in rows:
        if row > end:
            spans.append((first, end))
            first = row
        end = row + 1
    spans.append((first, end))
    return spans


def _cut(column: bytes, width: int, spans: list[tuple[int, int]]) -> bytes:
    return b"".join([column[width * first : width * end] for first, end in spans])
