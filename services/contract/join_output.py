"""What a join says: samples, rows with the reason why they are none, barriers passed.

Every record that goes in and is not used comes out as exactly one ``Rejected`` or is counted as a repeat;
every impressed item comes out as exactly one row of a ``Sample`` with label_version 0 (corrections come on
top) or is counted in exactly one ``Rejected.items``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rec.events.v1 import events_pb2 as ev
from services.contract.join_events import Source

# Headers of a rejected record, beside those of contract.topics.rejection_headers.
HEADER_ITEMS = "items"
HEADER_ITEM_IDS = "item-ids"
HEADER_DETAIL = "detail"


class Reason(StrEnum):
    """Why a record did not become (all of) what it stands for."""

    # Below the disorder bound of its own partition, or behind a barrier that promised its absence.
    LATE = "late"
    # Action later than its impression's window, or behind a barrier that closed it.
    AFTER_WINDOW = "after_window"
    # Action whose impression never came.
    NO_IMPRESSION = "no_impression"
    # Action on an item that its impression does not show.
    NOT_IMPRESSED = "not_impressed"
    # Action that does not change the label which its item has.
    ALREADY_LABELLED = "already_labelled"
    # Action of a kind that labels nothing.
    NO_LABEL_RULE = "no_label_rule"
    # Impression (and actions on it) without snapshot when its window closed.
    SNAPSHOT_LOST = "snapshot_lost"
    # Impression of a degraded answer (and actions on it): no snapshot exists.
    UNSCORED = "unscored"
    # Shown item (and actions on it) that is not among the scored ones.
    NOT_IN_SNAPSHOT = "not_in_snapshot"
    # Another impression, or snapshot, of a request that has one.
    SECOND_IMPRESSION = "second_impression"
    SECOND_SNAPSHOT = "second_snapshot"
    # Negatives that the sampling left out. Without the original bytes: request id and item ids name them.
    SAMPLED_OUT = "sampled_out"
    # Given up undecided because the state was full.
    EVICTED = "evicted"
    # Not an event at all: goes to dead-letters.
    MALFORMED = "malformed"
    # Snapshot whose named batch features are gone or are not those that were scored: goes to dead-letters,
    # its items leave as snapshot_lost.
    FEATURES_LOST = "features_lost"


# What operators must look at, and not only count.
DEAD = frozenset({Reason.MALFORMED, Reason.FEATURES_LOST})


class Sample:
    """Rows of one request that are decided now. ``data``: a TrainingSample without its ``joined_at``, which
    is the host's to add (join_wire).

    ``correction``: rows said before, with a label_version above 0."""

    __slots__ = ("correction", "data", "positive", "request_id", "rows")

    def __init__(
        self, data: bytes, request_id: str, rows: int, positive: bool, *, correction: bool = False
    ) -> None:
        self.data = data
        self.request_id = request_id
        self.rows = rows
        self.positive = positive
        self.correction = correction

    @property
    def message(self) -> ev.TrainingSample:
        """A new message of ``data``."""
        return ev.TrainingSample.FromString(self.data)


@dataclass(slots=True)
class Rejected:
    """One record that is not (wholly) used. ``items``: how many impressed items this explains.

    ``item_ids`` (n x uint64 LE) names them when they are not all of the impression. ``behind_us``: for late
    events, how far below the watermark."""

    reason: Reason
    source: Source
    offset: int
    raw: bytes
    request_id: str = ""
    items: int = 0
    item_ids: bytes = b""
    behind_us: int = 0
    detail: str = ""

    def headers(self) -> list[tuple[str, bytes]]:
        """Headers that only a join can write."""
        headers = [(HEADER_ITEMS, str(self.items).encode())]
        if self.item_ids:
            headers.append((HEADER_ITEM_IDS, self.item_ids))
        if self.detail:
            headers.append((HEADER_DETAIL, self.detail.encode()))
        return headers


@dataclass(slots=True)
class BarrierPassed:
    """The barrier stands behind everything that it promised, on all inputs."""

    barrier_id: str
    occurred_us: int


Output = Sample | Rejected | BarrierPassed
