"""From an event to the parts that touch one entity each, and which parts a fold has already taken.

``split`` is what feature_pipeline's stage 1 writes to feature-events. A part's ``origin_sequence`` is
origin offset x PARTS_PER_RECORD + index: strictly rising along the origin partition. A writer that starts
again re-reads from its committed offset, which is never above what it has written, and writes in order. So
whatever repeats, the first appearance of a part on a feature-events partition comes after all its
predecessors, and "drop what is not above the mark" (``Marks``) leaves each part once.

A barrier is forwarded by each origin partition to each feature-events partition. A fold has everything
before it when it has it from every origin partition on every feature-events partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rec.events.v1.events_pb2 import Action, Barrier, EventRecord, FeatureEvent, Impression, Item
from services.contract import topics
from services.contract.errors import MalformedRecord

PARTS_PER_RECORD = 1024
MAX_IMPRESSION_ITEMS = 500
# Every origin partition that forwards barriers.
BARRIER_ORIGINS: tuple[tuple[str, int], ...] = tuple(
    (topic.name, partition)
    for topic in (topics.IMPRESSIONS, topics.ACTIONS)
    for partition in range(topic.partitions)
)

Part = tuple[bytes, FeatureEvent]


def split(
    record: EventRecord,
    origin_topic: str,
    origin_partition: int,
    origin_offset: int,
    category_of: Callable[[int], int],
) -> list[Part]:
    """(key on feature-events, part) of each entity that an event touches, in the order to be written.

    Snapshots, heartbeats and barriers (see ``barrier_part``) touch none. MalformedRecord: more than
    MAX_IMPRESSION_ITEMS items.
    """
    base = origin_offset * PARTS_PER_RECORD
    kind = record.WhichOneof("record")
    if kind == "impression":
        return _split_impression(record.impression, origin_topic, origin_partition, base, category_of)
    if kind == "action":
        return _split_action(record.action, origin_topic, origin_partition, base, category_of)
    return []


def _part(event: Impression | Action, topic: str, partition: int, sequence: int) -> FeatureEvent:
    return FeatureEvent(
        event_id=event.event_id,
        occurred_at=event.occurred_at,
        origin_topic=topic,
        origin_partition=partition,
        origin_sequence=sequence,
    )


def _split_impression(
    shown: Impression, topic: str, partition: int, base: int, category_of: Callable[[int], int]
) -> list[Part]:
    items = shown.item_ids
    if len(items) > MAX_IMPRESSION_ITEMS:
        raise MalformedRecord.one("item_ids", f"{len(items)} items", f"at most {MAX_IMPRESSION_ITEMS}")
    user = _part(shown, topic, partition, base)
    user.user_shown.user_id = shown.user_id
    user.user_shown.categories.extend(map(category_of, items))
    parts = [(topics.entity_key(shown.user_id), user)]
    for index, item_id in enumerate(items, start=1):
        part = _part(shown, topic, partition, base + index)
        part.item_shown.item_id = item_id
        parts.append((topics.entity_key(item_id), part))
    return parts


def _split_action(
    action: Action, topic: str, partition: int, base: int, category_of: Callable[[int], int]
) -> list[Part]:
    user = _part(action, topic, partition, base)
    acted = user.user_acted
    acted.user_id, acted.item_id, acted.kind = action.user_id, action.item_id, action.kind
    acted.category = category_of(action.item_id)
    item = _part(action, topic, partition, base + 1)
    item.item_acted.item_id = action.item_id
    item.item_acted.kind = action.kind
    return [(topics.entity_key(action.user_id), user), (topics.entity_key(action.item_id), item)]


def listed_part(item: Item, origin_partition: int, origin_offset: int) -> Part:
    """(key, part) of one record of the catalogue."""
    part = FeatureEvent(
        event_id=f"catalog:{origin_offset}",
        occurred_at=item.created_at,
        origin_topic=topics.CATALOG.name,
        origin_partition=origin_partition,
        origin_sequence=origin_offset * PARTS_PER_RECORD,
    )
    part.item_listed.item_id = item.item_id
    part.item_listed.category = item.category
    part.item_listed.created_at.CopyFrom(item.created_at)
    return topics.entity_key(item.item_id), part


def barrier_part(barrier: Barrier, origin_topic: str, partition: int, offset: int) -> FeatureEvent:
    """The same part for every feature-events partition."""
    part = FeatureEvent(
        event_id=f"barrier:{barrier.barrier_id}",
        occurred_at=barrier.occurred_at,
        origin_topic=origin_topic,
        origin_partition=partition,
        origin_sequence=offset * PARTS_PER_RECORD,
    )
    part.barrier.CopyFrom(barrier)
    return part


def is_user_part(event: FeatureEvent) -> bool:
    """Whether the entity is a user (else an item)."""
    return event.WhichOneof("event") in ("user_shown", "user_acted")


def entity_of(event: FeatureEvent) -> int:
    """The id of the user or item that a part touches; MalformedRecord when it names none."""
    kind = event.WhichOneof("event")
    if kind is None or kind == "barrier":
        raise MalformedRecord.one("event", kind, "a part that touches an entity")
    part = getattr(event, kind)
    return part.user_id if kind in ("user_shown", "user_acted") else part.item_id


class Marks:
    """The last sequence taken of each origin partition, for one feature-events partition.

    Stored by the fold beside its state, in one transaction with it: fields ``topic/partition``.
    """

    def __init__(self, stored: Iterable[tuple[str, int]] = ()) -> None:
        self._marks = dict(stored)

    @staticmethod
    def field(event: FeatureEvent) -> str:
        """The stored name of an event's origin."""
        return f"{event.origin_topic}/{event.origin_partition}"

    def take(self, event: FeatureEvent) -> bool:
        """Moves the mark; False when the event is a repeat and has to be dropped."""
        origin = self.field(event)
        if event.origin_sequence <= self._marks.get(origin, -1):
            return False
        self._marks[origin] = event.origin_sequence
        return True

    def items(self) -> list[tuple[str, int]]:
        """(field, sequence), to be stored."""
        return list(self._marks.items())
