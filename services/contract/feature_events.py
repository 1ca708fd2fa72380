"""From a record to what it says to each partition of feature-events, and from there to view events.

``split`` is what feature_pipeline's stage 1 writes: each view event goes once to every partition that owns
one of its entities, the user's and the item's; all of one record for one partition is one message. So an
impression of ten items travels as ten items to its user and as the few that live there to the others.

A view event's sequence is origin offset x PARTS_PER_RECORD + place: strictly rising along the origin
partition (place 0: an action or a listing; 1 + index: the items of an impression). A writer that starts again
re-reads from its committed offset, which is never above what it has written, and writes in order. So whatever
repeats, the first appearance of an event on a feature-events partition comes after all its predecessors, and
"drop what is not above the mark" (view_fold.OriginMarks) leaves each once.

A listing has no event time of its own: what the catalogue says holds for all time, and its last word counts.
So it occurred at 0, and the events of an item are told apart by their place in the log (``event_hash`` = the
sequence). Any order of them then gives the last one, online as in the lake.

A barrier is forwarded by each origin partition to each feature-events partition. A fold has everything
before it when it has it from every origin partition on every feature-events partition.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from rec.events.v1.events_pb2 import (
    Action,
    Barrier,
    EventRecord,
    FeatureEvent,
    Impression,
    Item,
    ItemActed,
)
from services.contract import times, topics
from services.contract.errors import InvalidInput, MalformedRecord
from services.contract.feature_view import FeatureView
from services.contract.view_events import Event, event_hash

# The pipeline's consumer groups: what they have committed is what each stage has done.
SPLIT_GROUP = "feature_pipeline"
FOLD_GROUP = "feature_fold"
PARTS_PER_RECORD = 1024
MAX_IMPRESSION_ITEMS = 500
LISTED_US = 0
PARTITIONS = topics.FEATURE_EVENTS.partitions
# Every origin partition that forwards barriers.
BARRIER_ORIGINS: tuple[tuple[str, int], ...] = tuple(
    (topic.name, partition)
    for topic in (topics.IMPRESSIONS, topics.ACTIONS)
    for partition in range(topic.partitions)
)
# Fields whose owner gets an event; the key of a view must begin with one of them.
ROUTED = ("user_id", "item_id")

# (partition of feature-events, message)
Write = tuple[int, FeatureEvent]


@lru_cache(maxsize=1 << 17)
def _owner(first_key: bytes) -> int:
    return topics.partition_of(first_key, PARTITIONS)


def owner(entity: bytes) -> int:
    """The partition that folds an entity: that of its first key field."""
    return _owner(entity[:8])


def check_routed(view: FeatureView) -> None:
    """InvalidInput when feature-events does not carry a view's events to the owners of its entities."""
    if view.kind != "instant" and view.key[:1] not in [(field,) for field in ROUTED]:
        raise InvalidInput.one(f"{view.name}.key", view.key, f"beginning with {' or '.join(ROUTED)}")


def origin(event: FeatureEvent) -> str:
    """topic/partition: whose mark the event moves."""
    return f"{event.origin_topic}/{event.origin_partition}"


def split(
    record: EventRecord,
    origin_topic: str,
    origin_partition: int,
    origin_offset: int,
    category_of: Callable[[int], int],
) -> list[Write]:
    """What a record says to each partition, ascending.

    Snapshots, heartbeats and barriers (see ``barrier_event``) say nothing. MalformedRecord: more than
    MAX_IMPRESSION_ITEMS items, or as many positions as there are neither items nor none.
    """
    kind = record.WhichOneof("record")
    if kind == "impression":
        made = _shown(record.impression, category_of)
    elif kind == "action":
        made = _acted(record.action, category_of)
    else:
        return []
    event = getattr(record, kind)
    hashed, at_us = event_hash(event.event_id), times.to_us(event.occurred_at)
    for message in made.values():
        message.event_hash, message.occurred_us = hashed, at_us
        message.origin_topic, message.origin_partition = origin_topic, origin_partition
        message.origin_offset = origin_offset
    return sorted(made.items(), key=lambda write: write[0])


def _shown(shown: Impression, category_of: Callable[[int], int]) -> dict[int, FeatureEvent]:
    items = shown.item_ids
    if len(items) > MAX_IMPRESSION_ITEMS:
        raise MalformedRecord.one("item_ids", f"{len(items)} items", f"at most {MAX_IMPRESSION_ITEMS}")
    positions = shown.positions or range(len(items))
    if len(positions) != len(items):
        raise MalformedRecord.one("positions", len(positions), f"none, or {len(items)} as the items")
    users = owner(topics.entity_key(shown.user_id))
    made: dict[int, FeatureEvent] = {}
    for place, (item, position) in enumerate(zip(items, positions, strict=True), start=1):
        category = category_of(item)
        for partition in {users, owner(topics.entity_key(item))}:
            if partition not in made:
                made[partition] = FeatureEvent()
                made[partition].shown.user_id = shown.user_id
            columns = made[partition].shown
            columns.item_ids.append(item)
            columns.categories.append(category)
            columns.positions.append(position)
            columns.places.append(place)
    return made


def _acted(action: Action, category_of: Callable[[int], int]) -> dict[int, FeatureEvent]:
    acted = ItemActed(
        user_id=action.user_id,
        item_id=action.item_id,
        kind=action.kind,
        category=category_of(action.item_id),
        dwell_us=action.dwell.seconds * times.MICROS + action.dwell.nanos // 1000,
    )
    owners = {owner(topics.entity_key(entity)) for entity in (action.user_id, action.item_id)}
    return {partition: FeatureEvent(acted=acted) for partition in owners}


def listed(item: Item, origin_partition: int, origin_offset: int) -> Write:
    """What one record of the catalogue says, to the one partition of its item."""
    event = FeatureEvent(
        event_hash=origin_offset * PARTS_PER_RECORD,
        occurred_us=LISTED_US,
        origin_topic=topics.CATALOG.name,
        origin_partition=origin_partition,
        origin_offset=origin_offset,
    )
    event.listed.item_id, event.listed.category = item.item_id, item.category
    event.listed.created_us = times.to_us(item.created_at)
    return owner(topics.entity_key(item.item_id)), event


def barrier_event(barrier: Barrier, origin_topic: str, partition: int, offset: int) -> FeatureEvent:
    """The same for every feature-events partition."""
    event = FeatureEvent(
        occurred_us=times.to_us(barrier.occurred_at),
        origin_topic=origin_topic,
        origin_partition=partition,
        origin_offset=offset,
    )
    event.barrier.CopyFrom(barrier)
    return event


def size_of(event: FeatureEvent) -> int:
    """How many view events it holds; 1 for a barrier."""
    return len(event.shown.item_ids) if event.HasField("shown") else 1


def view_events(event: FeatureEvent) -> list[Event]:
    """The view events of a message, in order; none of a barrier. MalformedRecord: columns of unequal length,
    numbers beyond what a view may sum."""
    kind = event.WhichOneof("event")
    base, at_us, hashed = event.origin_offset * PARTS_PER_RECORD, event.occurred_us, event.event_hash
    if kind == "shown":
        return _view_shown(event, base)
    if kind == "acted":
        acted = event.acted
        fields = {
            "user_id": acted.user_id,
            "item_id": acted.item_id,
            "category": acted.category,
            "action": acted.kind,
            "dwell_s": acted.dwell_us,
        }
        return [Event("acted", at_us, hashed, fields, origin(event), base)]
    if kind == "listed":
        said = event.listed
        fields = {"item_id": said.item_id, "category": said.category, "created_at": said.created_us}
        return [Event("listed", at_us, hashed, fields, origin(event), base)]
    return []


def _view_shown(event: FeatureEvent, base: int) -> list[Event]:
    shown, name = event.shown, origin(event)
    columns = (shown.item_ids, shown.categories, shown.positions, shown.places)
    if len(set(map(len, columns))) > 1:
        raise MalformedRecord.one("shown", [len(column) for column in columns], "columns of equal length")
    found = []
    for item, category, position, place in zip(*columns, strict=True):
        fields = {"user_id": shown.user_id, "item_id": item, "category": category, "position": position}
        sequence = base + place
        found.append(Event("shown", event.occurred_us, event.event_hash ^ item, fields, name, sequence))
    return found
