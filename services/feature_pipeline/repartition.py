"""Stage 1, the rules: what an origin record becomes, and which records are repeats. Pure.

Which record is a repeat (a client that sent again) is contract.repeats' to say; after a restart the worker
shows the records before its position again (``remember``), without writing anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from rec.events.v1.events_pb2 import Action, EventRecord, Impression, Item
from services.contract import feature_events, times, topics
from services.contract.errors import MalformedRecord
from services.contract.feature_events import PARTITIONS, Write
from services.contract.repeats import SeenEvents


@dataclass(frozen=True)
class Split:
    """What becomes of one origin record. event_us is None for the catalogue."""

    writes: list[Write]
    repeat: bool = False
    event_us: int | None = None


class Splitter:
    """The records of one origin partition, in offset order."""

    def __init__(self, topic: str, partition: int, category_of: Callable[[int], int]) -> None:
        self._topic = topic
        self._partition = partition
        self._category_of = category_of
        self._seen = SeenEvents()

    def remember(self, offset: int, value: bytes | None) -> None:
        """Takes note of a record that has been split before."""
        try:
            event = _event_of(self._decode(value))
        except MalformedRecord:
            return
        if event is not None:
            self._seen.take(offset, event.event_id)

    def split(self, offset: int, value: bytes | None) -> Split:
        """MalformedRecord when the record cannot be used."""
        if self._topic == topics.CATALOG.name:
            return Split(self._list_item(offset, value))
        record = self._decode(value)
        kind = record.WhichOneof("record")
        if kind == "barrier":
            at_us = times.to_us(record.barrier.occurred_at)
            return Split(self._forward(record, offset), event_us=at_us)
        if kind == "heartbeat":
            return Split([], event_us=times.to_us(record.heartbeat.occurred_at))
        event = _event_of(record)
        if event is None:
            raise MalformedRecord.one("record", kind, "impression, action, heartbeat or barrier")
        # Split before it is remembered: a malformed record leaves no trace.
        writes = feature_events.split(record, self._topic, self._partition, offset, self._category_of)
        at_us = times.to_us(event.occurred_at)
        if self._seen.take(offset, event.event_id):
            return Split([], repeat=True, event_us=at_us)
        return Split(writes, event_us=at_us)

    def _decode(self, value: bytes | None) -> EventRecord:
        try:
            return EventRecord.FromString(value or b"")
        except DecodeError as error:
            raise MalformedRecord.one("record", f"{len(value or b'')} bytes", "an EventRecord") from error

    def _forward(self, record: EventRecord, offset: int) -> list[Write]:
        event = feature_events.barrier_event(record.barrier, self._topic, self._partition, offset)
        return [(partition, event) for partition in range(PARTITIONS)]

    def _list_item(self, offset: int, value: bytes | None) -> list[Write]:
        return [feature_events.listed(decode_item(value), self._partition, offset)]


def decode_item(value: bytes | None) -> Item:
    """One record of the catalogue; MalformedRecord when it is none."""
    try:
        item = Item.FromString(value or b"")
    except DecodeError as error:
        raise MalformedRecord.one("item", f"{len(value or b'')} bytes", "an Item") from error
    if item.item_id == 0:
        raise MalformedRecord.one("item_id", 0, "an id")
    return item


def _event_of(record: EventRecord) -> Impression | Action | None:
    kind = record.WhichOneof("record")
    if kind not in ("impression", "action"):
        return None
    event = getattr(record, kind)
    if not event.event_id:
        raise MalformedRecord.one("event_id", "", "not empty")
    if times.to_us(event.occurred_at) <= 0:
        raise MalformedRecord.one("occurred_at", times.to_us(event.occurred_at), "after 1970-01-01")
    return event
