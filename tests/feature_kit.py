"""What the tests share of features: the default set, the shape of its models, states made by the fold."""

from __future__ import annotations

from collections.abc import Iterable

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK
from services.contract.feature_sets import FEATURE_SETS, WORLD
from services.contract.model_schema import shape_of
from services.contract.view_events import Event
from services.contract.view_fold import OriginMarks, ViewFold
from services.contract.view_registry import FeatureSet
from services.runtime.resp import Reply

FEATURES = FEATURE_SETS[WORLD]
SHAPE = shape_of(FEATURES)


def states_of(events: Iterable[Event], feature_set: FeatureSet = FEATURES) -> dict[tuple[str, bytes], bytes]:
    """Packed states by (view, entity), as ``features.encode`` takes them, after events in log order."""
    names = {view.definition_hash: view.name for view in feature_set.views}
    change = ViewFold(feature_set.views, OriginMarks(), lambda key: None).round(list(events))
    return {(names[view], entity): state for (view, entity), state in change.states.items()}


def listed(item: int, category: int, created_us: int, sequence: int, at_us: int = 0) -> Event:
    """The catalogue says so."""
    fields = {"item_id": item, "category": category, "created_at": created_us}
    return Event("listed", at_us, sequence, fields, "catalog/0", sequence)


def shown(user: int, item: int, category: int, at_us: int, sequence: int) -> Event:
    """An item of an impression."""
    fields = {"user_id": user, "item_id": item, "category": category, "position": 0}
    return Event("shown", at_us, sequence, fields, "impressions/0", sequence)


def clicked(user: int, item: int, category: int, at_us: int, sequence: int) -> Event:
    """A click."""
    fields = {
        "user_id": user,
        "item_id": item,
        "category": category,
        "action": ACTION_KIND_CLICK,
        "dwell_s": 0,
    }
    return Event("acted", at_us, sequence, fields, "actions/0", sequence)


def wire_of(values: list[bytes | None]) -> bytes:
    """As Redis says an array."""
    each = (b"$-1\r\n" if v is None else b"$%d\r\n%b\r\n" % (len(v), v) for v in values)
    return b"*%d\r\n" % len(values) + b"".join(each)


def reply_of(values: list[bytes | None]) -> Reply:
    """As the feature server reads it."""
    reply = Reply()
    reply.feed(bytearray(wire_of(values)), 0)
    assert reply.done
    return reply
