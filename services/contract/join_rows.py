"""Cuts the shown rows out of a snapshot, and samples out of the shown rows. Bytes in, bytes out."""

from __future__ import annotations

import struct

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


class ShownRows:
    """The scored rows of one impression, in the order shown. Columns are little-endian bytes."""

    __slots__ = ("absent", "features", "head", "ids", "positions", "row_bytes", "scores", "size")

    def __init__(self, snapshot: ev.FeatureSnapshot, impression: ev.Impression, impressed_us: int) -> None:
        shown = impression.item_ids
        count = len(shown)
        packed = struct.pack(f"<{count}Q", *shown)
        places = struct.pack(f"<{count}I", *(impression.positions or range(count)))
        served, scores, features = snapshot.item_ids, snapshot.scores, snapshot.item_features
        width = 8 * len(features) // len(served)
        absent: list[bytes] = []
        ids: list[bytes] = []
        at: list[int] = []
        positions: list[bytes] = []
        for k in range(count):
            item = packed[8 * k : 8 * k + 8]
            row = find_row(served, item)
            if row < 0:
                absent.append(item)
                continue
            ids.append(item)
            at.append(row)
            positions.append(places[4 * k : 4 * k + 4])
        self.size = len(ids)
        self.row_bytes = width
        self.absent = b"".join(absent)
        self.ids = b"".join(ids)
        self.positions = b"".join(positions)
        self.scores = b"".join([scores[4 * row : 4 * row + 4] for row in at])
        self.features = b"".join([features[width * row : width * (row + 1)] for row in at])
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
            sample.item_ids = self.ids_of(rows)
            sample.positions = b"".join([self.positions[4 * r : 4 * r + 4] for r in rows])
            sample.scores = b"".join([self.scores[4 * r : 4 * r + 4] for r in rows])
            sample.item_features = b"".join([self.features[width * r : width * (r + 1)] for r in rows])
        return sample

    def ids_of(self, rows: list[int]) -> bytes:
        """The item ids of some rows, uint64 LE."""
        return b"".join([self.ids[8 * r : 8 * r + 8] for r in rows])
