"""Cuts the shown rows out of a snapshot, and samples out of the shown rows. Bytes in, bytes out."""

from __future__ import annotations

import struct
from functools import lru_cache

from services.contract import join_wire as wire
from services.contract.join_scan import Scored

_ALL_KEPT: bytes = wire.sample_rate(1.0)


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

    __slots__ = (
        *("absent", "ids", "positions", "row_bytes", "scores", "features", "size"),
        *("first", "user", "impressed", "scored"),
    )

    def __init__(self, scored: Scored, shown: bytes, positions: bytes, impressed_us: int) -> None:
        """``shown``: the impression's items, ``positions`` theirs (empty: in order), columns as in Listed."""
        count = len(shown) // 8
        positions = positions or _in_order(count)
        served, scores, features = scored.item_ids, scored.scores, scored.features
        self.row_bytes = width = 8 * len(features) // len(served)
        if served.startswith(shown):
            # Shown are mostly the best of the served, in their order.
            self.size, self.absent, self.ids, self.positions = count, b"", shown, positions
            self.scores, self.features = scores[: 4 * count], features[: width * count]
        else:
            rows = [find_row(served, shown[8 * k : 8 * k + 8]) for k in range(count)]
            here = [k for k, row in enumerate(rows) if row >= 0]
            self.size = len(here)
            self.absent = b"".join([shown[8 * k : 8 * k + 8] for k, row in enumerate(rows) if row < 0])
            self.ids = b"".join([shown[8 * k : 8 * k + 8] for k in here])
            self.positions = b"".join([positions[4 * k : 4 * k + 4] for k in here])
            self.scores = b"".join([scores[4 * rows[k] : 4 * rows[k] + 4] for k in here])
            self.features = b"".join([features[width * rows[k] : width * (rows[k] + 1)] for k in here])
        # Fields 1 to 6, 13, 15 and 17 of every sample of this impression.
        self.first = scored.first
        self.user = scored.user
        self.impressed = wire.stamped(wire.IMPRESSED_AT, impressed_us)
        self.scored = scored.scored

    def item_ids(self) -> tuple[int, ...]:
        """The item of each row."""
        return wire.u64s(self.size).unpack(self.ids)

    def row_of(self, item_id: bytes) -> int:
        """The row of an item (uint64 LE), -1 when it is not among the scored."""
        return find_row(self.ids, item_id)

    def bytes_held(self) -> int:
        """Size of the columns (without what Python adds)."""
        return len(self.ids) * 2 + len(self.features) + len(self.user)

    def positive(self, row: int, label: float, acted_us: int, version: int = 0) -> bytes:
        """The one row that an action has decided: a TrainingSample without its joined_at."""
        head = wire.frame(1, self.row_bytes, label, version)
        return self._sample([(row, row + 1)], head, _ALL_KEPT, wire.stamped(wire.ACTED_AT, acted_us))

    def negatives(self, rows: list[int], rate: float) -> bytes:
        """The given rows (ascending, at least one), decided by time. ``rate``: share of the negatives that
        is kept."""
        head = wire.frame(len(rows), self.row_bytes, 0.0, 0)
        kept = _ALL_KEPT if rate == 1.0 else wire.sample_rate(rate)
        return self._sample(_spans(rows), head, kept, b"")

    def _sample(self, spans: list[wire.Span], head: wire.Frame, rate: bytes, acted: bytes) -> bytes:
        return b"".join(
            (
                self.first,
                head.ids, wire.in_spans(self.ids, 8, spans),
                head.positions, wire.in_spans(self.positions, 4, spans),
                head.scores, wire.in_spans(self.scores, 4, spans),
                head.features, wire.in_spans(self.features, self.row_bytes, spans),
                self.user, rate, self.impressed, acted, self.scored,
            )
        )  # fmt: skip

    def ids_of(self, rows: list[int]) -> bytes:
        """The item ids of some rows, uint64 LE."""
        return wire.in_spans(self.ids, 8, _spans(rows))


def _spans(rows: list[int]) -> list[wire.Span]:
    """Ascending rows as [first, end) of neighbours: all but a clicked one are two."""
    spans: list[wire.Span] = []
    first = end = rows[0] if rows else 0
    for row in rows:
        if row > end:
            spans.append((first, end))
            first = row
        end = row + 1
    spans.append((first, end))
    return spans
