"""Stage 2, the rules: what one round of events does to the state of one feature-events partition. Pure.

A round: ``take`` the events (repeats drop out), ask ``missing`` which states have to be read, ``put`` those,
``fold``; the result is a ``Section``, everything that the round changes in Redis, to be written as one. When
the write turns out to be impossible (another owner), the whole partition is thrown away and claimed again.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK, FeatureEvent, FeatureEventBatch
from services.contract import feature_events, feature_fold, redis_keys, times
from services.contract.errors import InvalidInput, MalformedRecord
from services.contract.feature_events import Marks
from services.contract.feature_fold import ItemState, State, UserState
from services.contract.feature_layout import readable_item, readable_user

CO_CLICK_PAIRS = 5


@dataclass
class Section:
    """What one round changes. Offsets are those of feature-events: the next one before and after."""

    partition: int
    from_offset: int
    to_offset: int
    states: dict[bytes, bytes] = field(default_factory=dict)
    marks: list[tuple[str, int]] = field(default_factory=list)
    # (key of the sorted set, member) -> how much more.
    popular: Counter[tuple[bytes, bytes]] = field(default_factory=Counter)
    co_clicks: Counter[tuple[bytes, bytes]] = field(default_factory=Counter)
    impressions: int = 0
    clicks: int = 0
    # (barrier id, "feature partition:origin topic/partition")
    barriers: list[tuple[str, str]] = field(default_factory=list)
    events: int = 0


class PartitionFold:
    """One partition's marks and states, between a claim and its loss."""

    def __init__(self, partition: int, offset: int, marks: Marks, cache_entities: int) -> None:
        self.partition = partition
        self.offset = offset
        self.repeats = 0
        self._marks = marks
        self._limit = cache_entities
        self._cache: OrderedDict[bytes, State] = OrderedDict()

    def take(self, events: Iterable[FeatureEvent]) -> list[tuple[bytes, FeatureEvent]]:
        """(Redis key, event) of the events that are no repeats, and barriers with an empty key."""
        fresh: list[tuple[bytes, FeatureEvent]] = []
        for event in events:
            if self._marks.take(event):
                fresh.append((_key_of(event), event))
            else:
                self.repeats += 1
        return fresh

    def missing(self, fresh: Sequence[tuple[bytes, FeatureEvent]]) -> list[bytes]:
        """Keys whose states are not in memory."""
        return list(dict.fromkeys(key for key, _ in fresh if key and key not in self._cache))

    def put(self, key: bytes, value: bytes | None) -> bool:
        """A state as read from Redis; False when it could not be read and begins anew."""
        is_user = key.startswith(redis_keys.USER_PREFIX)
        if is_user:
            known = value is not None and readable_user(value)
            self._cache[key] = UserState.unpack(value) if known and value else UserState()
        else:
            known = value is not None and readable_item(value)
            self._cache[key] = ItemState.unpack(value) if known and value else ItemState()
        return known or value is None

    def fold(self, fresh: Sequence[tuple[bytes, FeatureEvent]], next_offset: int) -> Section:
        """Folds what ``take`` gave; every key must have been put. Moves ``offset`` to ``next_offset``."""
        section = Section(self.partition, self.offset, next_offset)
        touched: dict[bytes, State] = {}
        for key, event in fresh:
            if not key:
                passed = f"{self.partition}:{Marks.field(event)}"
                section.barriers.append((event.barrier.barrier_id, passed))
                continue
            state = self._cache[key]
            _count(section, state, event)
            feature_fold.fold(state, event)
            touched[key] = state
            section.events += 1
        for key, state in touched.items():
            section.states[key] = state.pack()
            self._cache.move_to_end(key)
        section.marks = self._marks.items()
        self.offset = next_offset
        return section

    def trim(self) -> None:
        """Forgets the states unused for longest; after their section has been written."""
        while len(self._cache) > self._limit:
            self._cache.popitem(last=False)


def decode(value: bytes | None) -> tuple[list[FeatureEvent], InvalidInput | None]:
    """The usable events of one record, and what is wrong with the others."""
    try:
        batch = FeatureEventBatch.FromString(value or b"")
    except DecodeError:
        return [], MalformedRecord.one("record", f"{len(value or b'')} bytes", "a FeatureEventBatch")
    if not batch.events:
        return [], MalformedRecord.one("events", "none", "at least one")
    good = [event for event in batch.events if _usable(event)]
    if len(good) < len(batch.events):
        bad = f"{len(batch.events) - len(good)} of {len(batch.events)}"
        return good, MalformedRecord.one("events", bad, "an origin, and an entity or a barrier")
    return good, None


def _usable(event: FeatureEvent) -> bool:
    return bool(event.origin_topic) and event.WhichOneof("event") is not None


def _key_of(event: FeatureEvent) -> bytes:
    if event.HasField("barrier"):
        return b""
    entity = feature_events.entity_of(event)
    return redis_keys.user_key(entity) if feature_events.is_user_part(event) else redis_keys.item_key(entity)


def _count(section: Section, state: State, event: FeatureEvent) -> None:
    """What an event does beyond its own entity; ``state`` is the one before it."""
    kind = event.WhichOneof("event")
    if kind == "item_shown":
        section.impressions += 1
    elif kind == "item_acted" and event.item_acted.kind == ACTION_KIND_CLICK:
        section.clicks += 1
        hop = redis_keys.popular_hop(times.to_us(event.occurred_at))
        member = event.item_acted.item_id.to_bytes(8, "little")
        section.popular[redis_keys.popular_key(hop), member] += 1
    elif kind == "user_acted" and event.user_acted.kind == ACTION_KIND_CLICK and isinstance(state, UserState):
        item = event.user_acted.item_id
        before = dict.fromkeys(click[2] for click in state.last_clicks[:CO_CLICK_PAIRS])
        for other in before:
            if other != item:
                section.co_clicks[redis_keys.co_click_key(item), other.to_bytes(8, "little")] += 1
                section.co_clicks[redis_keys.co_click_key(other), item.to_bytes(8, "little")] += 1
