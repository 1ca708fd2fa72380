"""What the join needs of an event, read straight from the bytes of its record.

A generated message costs more to make and to ask than all rules of the join. So the usual record, one that
stands as protobuf itself writes it (fields ascending, each once, none at its default, shortest lengths), is
cut into what a join keeps and what it says; ``scan`` answers None to every other one, malformed ones
included. For these join_events.decode judges, and ``of_message`` takes the same things from the message
(tested: whatever ``scan`` takes, decode accepts with equal values).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, Final

from google.protobuf.message import DecodeError

from rec.events.v1 import events_pb2 as ev
from rec.model.v1 import model_pb2
from services.contract import join_wire as wire
from services.contract.ids import MAX_EVENT_ID_CHARS, MAX_REQUEST_ID_CHARS
from services.contract.join_events import KINDS, Source
from services.contract.times import MICROS

# Five bytes hold every length, and every time until the year 3058.
_MAX_VARINT_BITS: Final = 35
_MAX_NANOS: Final = (1 << 31) - 1
_ZERO: Final = b"\0\0\0\0\0\0\0\0"


class Event:
    """Base: who and when. ``occurred_us``: event time."""

    __slots__ = ("event_id", "occurred_us", "request_id")

    def __init__(self, event_id: str, request_id: str, occurred_us: int) -> None:
        self.event_id = event_id
        self.request_id = request_id
        self.occurred_us = occurred_us


class Scored(Event):
    """A snapshot: the bytes that samples are made of. Columns are little-endian, one row an item.

    ``first``: fields 1 to 6 of its samples; ``user``, ``scored``: their fields 13 and 17, empty when there is
    none. ``slim``: the message, when columns are left out of it."""

    __slots__ = ("features", "first", "item_ids", "scored", "scores", "slim", "user")

    def __init__(self, event_id: str, request_id: str, occurred_us: int, first: bytes) -> None:
        super().__init__(event_id, request_id, occurred_us)
        self.first = first
        self.item_ids = b""
        self.scores = b""
        self.features = b""
        self.user = b""
        self.scored = b""
        self.slim: ev.FeatureSnapshot | None = None


class Listed(Event):
    """An impression. ``item_ids``: n x uint64 LE, each once; ``positions``: n x uint32 LE, empty = in
    order."""

    __slots__ = ("item_ids", "positions", "unscored")

    def __init__(self, event_id: str, request_id: str, occurred_us: int, item_ids: bytes) -> None:
        super().__init__(event_id, request_id, occurred_us)
        self.item_ids = item_ids
        self.positions = b""
        self.unscored = False


class Done(Event):
    """An action. ``item_id``: uint64 LE."""

    __slots__ = ("item_id", "kind")

    def __init__(self, event_id: str, request_id: str, occurred_us: int, item_id: bytes, kind: int) -> None:
        super().__init__(event_id, request_id, occurred_us)
        self.item_id = item_id
        self.kind = kind


def scan(source: Source, raw: bytes, max_items: int) -> Event | None:
    """The event of a usual record of this input; None: let decode judge."""
    at = _Cursor(raw)
    try:
        if source is Source.SNAPSHOTS:
            return _snapshot(at, max_items)
        if source is Source.IMPRESSIONS:
            return _impression(at, max_items)
        return _action(at)
    except UnicodeDecodeError:
        return None


def _snapshot(at: _Cursor, max_items: int) -> Scored | None:
    if not at.envelope(0x0A):
        return None
    event_id = at.chunk(0x0A).decode()
    request_id, request = at.chunk(0x12).decode(), at.framed()
    occurred_us, occurred = at.stamp(0x1A), at.framed()
    user_id = at.fixed64(0x21)
    at.stamp(0x2A)
    scored_at = at.framed()
    schema_hash = at.fixed64(0x31)
    model, framed_model = at.chunk(0x3A), at.framed()
    at.chunk(0x42).decode()
    arm = at.framed()
    # What the samples say of their request, each field under its tag there.
    first = [b"\x0a", request, b"\x12", occurred]
    if user_id:
        first += (b"\x19", user_id)
    if schema_hash:
        first += (b"\x21", schema_hash)
    if model:
        first += (b"\x2a", framed_model)
    if arm:
        first += (b"\x32", arm)
    event = Scored(event_id, request_id, occurred_us, b"".join(first))
    event.scored = b"\x8a\x01" + scored_at if scored_at else b""
    event.item_ids, event.scores = at.chunk(0x4A), at.chunk(0x52)
    user_features, framed_user = at.chunk(0x5A), at.framed()
    event.user = b"\x6a" + framed_user if user_features else b""
    event.features = at.chunk(0x62)
    size = len(event.item_ids)
    if (
        at.whole()
        and _ids_fit(event)
        and 0 < size <= 8 * max_items
        and not size % 8
        and 2 * len(event.scores) == size
        and not 2 * len(event.features) % size
        and not len(user_features) % 4
        and (not model or _as_written(model))
    ):
        return event
    return None


def _impression(at: _Cursor, max_items: int) -> Listed | None:
    if not at.envelope(0x12):
        return None
    event_id, request_id = at.chunk(0x0A).decode(), at.chunk(0x12).decode()
    occurred_us = at.stamp(0x1A)
    at.fixed64(0x21)
    item_ids, places = at.chunk(0x2A), at.chunk(0x32)
    unscored = at.number(0x38)
    rows = len(item_ids) // 8
    event = Listed(event_id, request_id, occurred_us, item_ids)
    event.unscored = unscored == 1
    if not (
        at.whole()
        and _ids_fit(event)
        and 0 < rows <= max_items
        and not len(item_ids) % 8
        and unscored <= 1
        and len(set(wire.u64s(rows).unpack(item_ids))) == rows
    ):
        return None
    if places:
        # Positions below 128 take a byte each.
        if len(places) != rows or not places.isascii():
            return None
        event.positions = struct.pack(f"<{rows}I", *places)
    return event


def _action(at: _Cursor) -> Done | None:
    if not at.envelope(0x1A):
        return None
    event_id, request_id = at.chunk(0x0A).decode(), at.chunk(0x12).decode()
    occurred_us = at.stamp(0x1A)
    at.fixed64(0x21)
    item_id, kind = at.fixed64(0x29) or _ZERO, at.number(0x30)
    # How long it took: a Duration, which is written like a time.
    at.stamp(0x3A)
    event = Done(event_id, request_id, occurred_us, item_id, kind)
    return event if at.whole() and kind in KINDS and _ids_fit(event) else None


def _ids_fit(event: Event) -> bool:
    """And there is a time: only 1970 begins with 0, and decode knows that."""
    return (
        0 < len(event.request_id) <= MAX_REQUEST_ID_CHARS
        and 0 < len(event.event_id) <= MAX_EVENT_ID_CHARS
        and event.occurred_us > 0
    )


@lru_cache(maxsize=64)
def _as_written(model: bytes) -> bool:
    try:
        return bool(model_pb2.ModelVersion.FromString(model).SerializeToString() == model)
    except DecodeError:
        return False


class _Cursor:
    """Walks over the fields of a message. One that is not there, or not as protobuf would write it, reads
    as empty; the latter also ends the walk, so that ``whole`` is false. All tags are one byte."""

    __slots__ = ("at", "begin", "end", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 0
        self.end = len(raw)
        # Where the last field stands, behind its tag.
        self.begin = 0

    def envelope(self, tag: int) -> bool:
        """Steps into the one field that is all there is."""
        return self._begins(tag) and self._varint() == self.end - self.at > 0

    def whole(self) -> bool:
        """Whether all has been read."""
        return self.at == self.end

    def framed(self) -> bytes:
        """The last field behind its tag: size and payload; empty when it is not there."""
        return self.raw[self.begin : self.at]

    def chunk(self, tag: int) -> bytes:
        """A string, bytes or packed field."""
        if not self._begins(tag):
            return b""
        size = self._varint()
        first = self.at
        if not 0 < size <= self.end - first:
            return self._stop()
        self.at = first + size
        return self.raw[first : self.at]

    def fixed64(self, tag: int) -> bytes:
        """Eight bytes, not all zero."""
        if not self._begins(tag):
            return b""
        first = self.at
        self.at = first + 8
        number = self.raw[first : self.at]
        return number if self.at <= self.end and number != _ZERO else self._stop()

    def number(self, tag: int) -> int:
        """A varint field, above 0."""
        return self._varint() if self._begins(tag) else 0

    def stamp(self, tag: int) -> int:
        """A Timestamp or Duration, above 0: microseconds."""
        if not self._begins(tag):
            return 0
        begin, end = self.at, self._varint()
        end += self.at
        seconds, nanos = self.number(0x08), 0
        if self.at < end:
            nanos = self.number(0x10)
        if self.at != end or nanos > _MAX_NANOS:
            self._stop()
        self.begin = begin
        return seconds * MICROS + nanos // 1000

    def _begins(self, tag: int) -> bool:
        there = self.at < self.end and self.raw[self.at] == tag
        self.at += there
        self.begin = self.at
        return there

    def _varint(self) -> int:
        """Above 0 and in its shortest form, else the walk ends."""
        raw, at, number, shift = self.raw, self.at, 0, 0
        while at < self.end and shift < _MAX_VARINT_BITS:
            byte = raw[at]
            at += 1
            if byte < 0x80:
                if not byte:
                    break
                self.at = at
                return number | byte << shift
            number |= (byte & 0x7F) << shift
            shift += 7
        self._stop()
        return 0

    def _stop(self) -> bytes:
        self.at = self.end + 1
        return b""


def of_message(source: Source, message: Any, occurred_us: int) -> Event:
    """The same of a message that decode has accepted."""
    if source is Source.SNAPSHOTS:
        return scored_of(message, occurred_us)
    ids = message.event_id, message.request_id
    if source is Source.ACTIONS:
        return Done(*ids, occurred_us, message.item_id.to_bytes(8, "little"), message.kind)
    rows, places = len(message.item_ids), message.positions
    event = Listed(*ids, occurred_us, wire.u64s(rows).pack(*message.item_ids))
    event.positions = struct.pack(f"<{rows}I", *places) if places else b""
    event.unscored = message.unscored
    return event


def scored_of(snapshot: ev.FeatureSnapshot, occurred_us: int) -> Scored:
    """The same of a snapshot's message."""
    first = ev.TrainingSample(
        request_id=snapshot.request_id,
        occurred_at=snapshot.occurred_at,
        user_id=snapshot.user_id,
        schema_hash=snapshot.schema_hash,
        arm=snapshot.arm,
    )
    if snapshot.HasField("model"):
        first.model.CopyFrom(snapshot.model)
    event = Scored(snapshot.event_id, snapshot.request_id, occurred_us, first.SerializeToString())
    event.item_ids, event.scores = snapshot.item_ids, snapshot.scores
    event.features = snapshot.item_features
    event.user = wire.delimited(13, snapshot.user_features)
    if snapshot.HasField("scored_at"):
        stamp = snapshot.scored_at.SerializeToString()
        event.scored = wire.head_of(17, len(stamp)) + stamp
    if snapshot.HasField("slim"):
        event.slim = snapshot
    return event
