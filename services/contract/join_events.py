"""From the bytes of an input record to an event, or the reason why it is none.

Only structure is judged here: a record that passes can be joined without further checks.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from google.protobuf.message import DecodeError

from rec.events.v1 import events_pb2 as ev
from services.contract.errors import MalformedRecord
from services.contract.ids import MAX_EVENT_ID_CHARS, MAX_REQUEST_ID_CHARS
from services.contract.times import MICROS

MAX_BARRIER_ID_CHARS = 128
# The range that a protobuf Timestamp may hold: years 1 to 9999.
_MIN_SECONDS, _MAX_SECONDS = -62_135_596_800, 253_402_300_799


class Source(IntEnum):
    """The inputs of a join, in the order of the loop."""

    SNAPSHOTS = 0
    IMPRESSIONS = 1
    ACTIONS = 2


SOURCES = (Source.SNAPSHOTS, Source.IMPRESSIONS, Source.ACTIONS)
# The event of each.
NAMES = ("snapshot", "impression", "action")
_BESIDE = frozenset({"heartbeat", "barrier"})


class Malformed(MalformedRecord):
    """``items``: how many impressed items the record stands for, as far as that can be told."""

    items: int = 0


def _refuse(field: str, value: object, allowed: str, items: int = 0) -> Malformed:
    error = Malformed.one(field, value, allowed)
    assert isinstance(error, Malformed)
    error.items = items
    return error


def decode(source: Source, raw: bytes, max_items: int) -> tuple[str, int, Any]:
    """(name of the oneof field, event time in us, message) of one input record; Malformed says what is
    wrong."""
    try:
        record = ev.EventRecord.FromString(raw)
    except DecodeError as error:
        raise _refuse("record", f"{len(raw)} bytes", "an EventRecord") from error
    name = record.WhichOneof("record")
    if name is None:
        raise _refuse("record", "empty", "one of the events")
    event = getattr(record, name)
    wanted = NAMES[source]
    items = len(event.item_ids) if name == "impression" else 0
    if name != wanted and name not in _BESIDE:
        raise _refuse("record", name, f"{wanted}, heartbeat or barrier", items)
    stamp = event.occurred_at
    seconds = stamp.seconds
    if not seconds and not event.HasField("occurred_at"):
        raise _refuse("occurred_at", "unset", "a time", items)
    if not _MIN_SECONDS <= seconds <= _MAX_SECONDS:
        raise _refuse("occurred_at", seconds, "years 1 to 9999", items)
    if name == wanted:
        _check_ids(event, items)
        _CHECKS[source](event, max_items)
    elif name == "barrier" and not 0 < len(event.barrier_id) <= MAX_BARRIER_ID_CHARS:
        raise _refuse("barrier_id", event.barrier_id, f"1 to {MAX_BARRIER_ID_CHARS} characters")
    return name, seconds * MICROS + stamp.nanos // 1000, event


def _check_ids(event: ev.FeatureSnapshot | ev.Impression | ev.Action, items: int) -> None:
    if not 0 < len(event.request_id) <= MAX_REQUEST_ID_CHARS:
        raise _refuse("request_id", event.request_id, f"1 to {MAX_REQUEST_ID_CHARS} characters", items)
    if not 0 < len(event.event_id) <= MAX_EVENT_ID_CHARS:
        raise _refuse("event_id", event.event_id, f"1 to {MAX_EVENT_ID_CHARS} characters", items)


def _check_snapshot(event: ev.FeatureSnapshot, max_items: int) -> None:
    rows, rest = divmod(len(event.item_ids), 8)
    if rest or not 0 < rows <= max_items:
        raise _refuse(
            "item_ids", f"{len(event.item_ids)} bytes", f"8 bytes for each of 1 to {max_items} items"
        )
    if len(event.scores) != 4 * rows:
        raise _refuse("scores", f"{len(event.scores)} bytes", f"{4 * rows} bytes")
    if len(event.item_features) % (4 * rows):
        raise _refuse("item_features", f"{len(event.item_features)} bytes", f"{rows} rows of float32")
    if len(event.user_features) % 4:
        raise _refuse("user_features", f"{len(event.user_features)} bytes", "float32")


def _check_impression(event: ev.Impression, max_items: int) -> None:
    shown = event.item_ids[:]
    rows = len(shown)
    if not 0 < rows <= max_items:
        raise _refuse("item_ids", rows, f"1 to {max_items} items", rows)
    if len(set(shown)) != rows:
        raise _refuse("item_ids", shown, "each item once", rows)
    if event.positions and len(event.positions) != rows:
        raise _refuse("positions", len(event.positions), f"none, or {rows}", rows)


def _check_action(event: ev.Action, max_items: int) -> None:
    if event.kind not in KINDS:
        raise _refuse("kind", event.kind, "a known kind of action")


# What an action may be.
KINDS = frozenset(ev.ActionKind.values()) - {ev.ACTION_KIND_UNSPECIFIED}
_CHECKS = (_check_snapshot, _check_impression, _check_action)
