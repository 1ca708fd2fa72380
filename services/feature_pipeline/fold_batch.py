"""Stage 2, the rules: what one round of events does to the states of one feature-events partition. Pure.

A round: ``take`` the messages (repeats drop out), ask ``missing`` which states have to be read, ``put``
those, ``fold``; the result is a ``Section``, everything that the round changes in Redis, to be written as
one. When the write turns out to be impossible (another owner), the whole partition is thrown away and
claimed again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK, FeatureEvent, FeatureEventBatch
from services.contract import feature_events, redis_keys, topics
from services.contract.errors import InvalidInput, MalformedRecord
from services.contract.feature_view import FeatureView
from services.contract.view_clicks import LAST_CLICKS
from services.contract.view_events import Event
from services.contract.view_fold import OriginMarks, StateKey, Touched, ViewFold
from services.contract.view_plan import Plan, plan_of
from services.contract.view_ttl import ttl_s

CO_CLICK_PAIRS = 5

# What is usable of a message: its view events, or the barrier that it is.
Message = tuple[FeatureEvent, list[Event]]


@dataclass
class Section:
    """What one round changes. Offsets are those of feature-events: the next one before and after."""

    partition: int
    from_offset: int
    to_offset: int
    # Where both and the marks stand.
    mark_key: bytes
    # Key -> value, and how long it lives.
    states: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)
    # (key of the sorted set, member) -> how much more.
    popular: Counter[tuple[bytes, bytes]] = field(default_factory=Counter)
    co_clicks: Counter[tuple[bytes, bytes]] = field(default_factory=Counter)
    # (barrier id, "feature partition:origin topic/partition")
    barriers: list[tuple[str, str]] = field(default_factory=list)
    events: int = 0


@dataclass
class Taken:
    """The events of a round that are no repeats, and the barriers among them."""

    fresh: list[Touched] = field(default_factory=list)
    barriers: list[tuple[str, str]] = field(default_factory=list)
    repeats: int = 0


class PartitionFold:
    """One partition's marks and states, between a claim and its loss."""

    def __init__(  # noqa: PLR0917
        self,
        partition: int,
        offset: int,
        marks: OriginMarks,
        views: Sequence[FeatureView],
        cache_states: int,
        mark_key: bytes | None = None,
    ) -> None:
        """``mark_key``: of a view that catches up alone; what is not of views has been counted already."""
        self.partition = partition
        self.offset = offset
        self._marks = marks
        self._views = {view.definition_hash: view for view in views}
        self._read: dict[StateKey, bytes | None] = {}
        self._fold = ViewFold(views, marks, self._read.get, self._owns, cache_states)
        self._mark_key = mark_key or redis_keys.mark_key(partition)
        self._alone = mark_key is not None
        self._clicks = next((plan_of(view) for view in views if view.name == LAST_CLICKS), None)

    def _owns(self, entity: bytes) -> bool:
        return feature_events.owner(entity) == self.partition

    def add_view(self, view: FeatureView) -> None:
        """Folds another view from the next event on."""
        self._views[view.definition_hash] = view
        self._fold.add(view)

    def take(self, messages: Iterable[Message]) -> Taken:
        """Drops repeats; moves the marks."""
        taken = Taken()
        for message, events in messages:
            if message.HasField("barrier"):
                origin = feature_events.origin(message)
                if self._marks.take(origin, message.origin_offset * feature_events.PARTS_PER_RECORD):
                    taken.barriers.append((message.barrier.barrier_id, f"{self.partition}:{origin}"))
                else:
                    taken.repeats += 1
                continue
            fresh = self._fold.fresh(events)
            taken.fresh += fresh
            taken.repeats += len(events) - len(fresh)
        return taken

    def missing(self, taken: Taken) -> dict[bytes, tuple[StateKey, Plan]]:
        """Redis keys of the states that are not in memory, and what they are."""
        wanted = self._fold.missing(taken.fresh)
        return {redis_keys.view_key(plan.view, key[1]): (key, plan) for key, plan in wanted.items()}

    def put(self, key: StateKey, plan: Plan, value: bytes | None) -> bool:
        """A state as read from Redis; False when it cannot be read and begins anew."""
        self._read[key] = value
        return value is None or plan.readable(value)

    def fold(self, taken: Taken, next_offset: int) -> Section:
        """Folds what ``take`` gave; every state must have been put. Moves ``offset`` to ``next_offset``."""
        section = Section(self.partition, self.offset, next_offset, self._mark_key)
        if self._alone:
            change = self._fold.fold(taken.fresh)
        else:
            section.barriers = taken.barriers
            change = self._fold.fold(taken.fresh, lambda event: self._count(section, event))
        self._read.clear()
        for (definition, entity), value in change.states.items():
            view = self._views[definition]
            section.states[redis_keys.view_key(view, entity)] = value, ttl_s(view)
        section.marks = change.marks
        section.events = len(taken.fresh)
        self.offset = next_offset
        return section

    def _count(self, section: Section, event: Event) -> None:
        """What a click does beyond the views; the states are still without it."""
        if event.kind != "acted" or event.fields["action"] != ACTION_KIND_CLICK:
            return
        item = event.fields["item_id"]
        if self._owns(topics.entity_key(item)):
            hop = redis_keys.popular_key(redis_keys.popular_hop(event.occurred_us))
            section.popular[hop, topics.entity_key(item)] += 1
        user = topics.entity_key(event.fields["user_id"])
        if self._clicks is None or not self._owns(user):
            return
        state = self._fold.state(self._clicks, (self._clicks.view.definition_hash, user))
        before = state.recent(0)[:CO_CLICK_PAIRS]
        for other in dict.fromkeys(click[2] for click in before):
            if other != item:
                section.co_clicks[redis_keys.co_click_key(item), topics.entity_key(other)] += 1
                section.co_clicks[redis_keys.co_click_key(other), topics.entity_key(item)] += 1


def decode(value: bytes | None) -> tuple[list[Message], InvalidInput | None]:
    """The usable messages of one record, and what is wrong with the others."""
    try:
        batch = FeatureEventBatch.FromString(value or b"")
    except DecodeError:
        return [], MalformedRecord.one("record", f"{len(value or b'')} bytes", "a FeatureEventBatch")
    if not batch.events:
        return [], MalformedRecord.one("events", "none", "at least one")
    good, wrong = [], []
    for message in batch.events:
        try:
            good.append((message, _checked(message)))
        except MalformedRecord as error:
            wrong.append(error)
    if wrong:
        bad = f"{len(wrong)} of {len(batch.events)}"
        return good, MalformedRecord.one("events", bad, f"usable ({wrong[0]})")
    return good, None


def _checked(message: FeatureEvent) -> list[Event]:
    if not message.origin_topic or message.WhichOneof("event") is None:
        raise MalformedRecord.one("event", "none", "an origin, and something that happened or a barrier")
    return feature_events.view_events(message)
