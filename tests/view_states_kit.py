"""What the tests of the feature server share: the states of a small world, made by the real fold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK
from services.contract import redis_keys
from services.contract.view_events import Event
from services.contract.view_fold import OriginMarks, ViewFold
from services.contract.view_registry import FeatureSet

# (name of the view, entity) -> packed state.
States = dict[tuple[str, bytes], bytes]


def event(
    kind: str, at_us: int, user: int, item: int, category: int, *, sequence: int, dwell_us: int = 0
) -> Event:
    """One event of a kind; ``sequence`` is its place in the log, and breaks ties."""
    ids = {"user_id": user, "item_id": item, "category": category}
    fields: Mapping[str, int] = {
        "shown": ids | {"position": 0},
        "acted": ids | {"action": ACTION_KIND_CLICK, "dwell_s": dwell_us},
        "listed": {"item_id": item, "category": category, "created_at": at_us},
    }[kind]
    return Event(kind, at_us, sequence * 7, fields, "t/0", sequence)


def folded(feature_set: FeatureSet, events: Iterable[Event], states: States | None = None) -> States:
    """The states after more events."""
    stored = dict(states or {})
    name_of = {view.definition_hash: view.name for view in feature_set.views}
    fold = ViewFold(feature_set.views, OriginMarks(), lambda key: stored.get((name_of[key[0]], key[1])))
    change = fold.round(list(events))
    return stored | {(name_of[view], entity): value for (view, entity), value in change.states.items()}


def redis_values(feature_set: FeatureSet, states: States) -> dict[bytes, bytes]:
    """As they stand in Redis."""
    views = {view.name: view for view in feature_set.views}
    return {redis_keys.view_key(views[name], entity): value for (name, entity), value in states.items()}
