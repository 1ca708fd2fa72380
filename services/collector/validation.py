"""What the collector refuses, with every violation at once and where it stands
(``impressions[3].item_ids``).
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from rec.events.v1 import events_pb2
from services.collector.time_bounds import TimeBounds
from services.contract.errors import FieldViolation, InvalidInput
from services.contract.ids import MAX_EVENT_ID_CHARS, MAX_REQUEST_ID_CHARS, hash_key
from services.contract.times import to_us

MAX_EVENTS = 1_000
MAX_ITEMS_SHOWN = 500
MAX_POSITION = 999
MAX_CATALOG_ITEMS = 1_000
MAX_CATEGORY = 63
MAX_ITEM_KEY_CHARS = 256
MAX_BARRIER_ID_CHARS = 64
_MAX_SECONDS = 253_402_300_799
_NANOS = 1_000_000_000
_KINDS = frozenset(events_pb2.ActionKind.values()) - {events_pb2.ACTION_KIND_UNSPECIFIED}


class _Violations:
    """Collects violations below a path."""

    def __init__(self, path: str = "") -> None:
        self.found: list[FieldViolation] = []
        self.path = path

    def add(self, field: str, value: object, allowed: str) -> None:
        self.found.append(FieldViolation(self.path + field, str(value)[:100], allowed))

    def text(self, field: str, value: str, max_chars: int) -> None:
        if not value or len(value) > max_chars:
            shown = repr(value[:20]) if value else "''"
            self.add(field, f"{shown} ({len(value)} characters)", f"1 to {max_chars} characters")

    def identifier(self, field: str, value: int) -> None:
        if value == 0:
            self.add(field, value, "a non-zero id")

    def stamp(self, field: str, present: bool, stamp: Timestamp, bounds: TimeBounds | None) -> None:
        if not present:
            self.add(field, "unset", "set")
        elif not (0 <= stamp.seconds <= _MAX_SECONDS and 0 <= stamp.nanos < _NANOS):
            self.add(field, f"{stamp.seconds} s {stamp.nanos} ns", "a time from 1970 to 9999")
        elif bounds is not None:
            micros = to_us(stamp)
            if micros < bounds.earliest_us:
                self.add(field, f"{micros} us", f"at least {bounds.earliest_us} us (run's distant past)")
            elif micros > bounds.latest_us:
                self.add(field, f"{micros} us", f"at most {bounds.latest_us} us (run's future)")

    def raise_if_any(self) -> None:
        if self.found:
            raise InvalidInput(self.found)


def check_events(
    impressions: Iterable[events_pb2.Impression],
    actions: Iterable[events_pb2.Action],
    bounds: TimeBounds,
    path: str = "",
) -> None:
    """Raises InvalidInput with all violations of a batch; ``path`` goes in front of each field name."""
    violations = _Violations()
    shown, acted = list(impressions), list(actions)
    if not 1 <= len(shown) + len(acted) <= MAX_EVENTS:
        violations.add(path + "events", len(shown) + len(acted), f"1 to {MAX_EVENTS} together")
    else:
        for index, impression in enumerate(shown):
            violations.path = f"{path}impressions[{index}]."
            _check_impression(violations, impression, bounds)
        for index, action in enumerate(acted):
            violations.path = f"{path}actions[{index}]."
            _check_action(violations, action, bounds)
    violations.raise_if_any()


def _check_common(
    violations: _Violations, event: events_pb2.Impression | events_pb2.Action, bounds: TimeBounds
) -> None:
    violations.text("event_id", event.event_id, MAX_EVENT_ID_CHARS)
    violations.text("request_id", event.request_id, MAX_REQUEST_ID_CHARS)
    violations.identifier("user_id", event.user_id)
    violations.stamp("occurred_at", event.HasField("occurred_at"), event.occurred_at, bounds)


def _check_impression(violations: _Violations, impression: events_pb2.Impression, bounds: TimeBounds) -> None:
    _check_common(violations, impression, bounds)
    items, positions = impression.item_ids, impression.positions
    if not 1 <= len(items) <= MAX_ITEMS_SHOWN:
        violations.add("item_ids", f"{len(items)} items", f"1 to {MAX_ITEMS_SHOWN} items")
    elif len(set(items)) != len(items):
        violations.add("item_ids", f"{len(items) - len(set(items))} repeated", "distinct items")
    elif 0 in items:
        violations.add("item_ids", 0, "non-zero ids")
    if positions and len(positions) != len(items):
        violations.add("positions", f"{len(positions)} positions", f"none, or {len(items)}: one an item")
    elif positions and max(positions) > MAX_POSITION:
        violations.add("positions", max(positions), f"at most {MAX_POSITION}")


def _check_action(violations: _Violations, action: events_pb2.Action, bounds: TimeBounds) -> None:
    _check_common(violations, action, bounds)
    violations.identifier("item_id", action.item_id)
    if action.kind not in _KINDS:
        violations.add("kind", action.kind, f"one of {sorted(_KINDS)}")
    dwell = action.dwell
    if dwell.seconds < 0 or dwell.nanos < 0 or dwell.nanos >= _NANOS:
        violations.add("dwell", f"{dwell.seconds} s {dwell.nanos} ns", "not negative")


def check_items(items: Iterable[events_pb2.Item]) -> None:
    """Raises InvalidInput with all violations of a list of catalogue items."""
    violations = _Violations()
    listed = list(items)
    if not 1 <= len(listed) <= MAX_CATALOG_ITEMS:
        violations.add("items", len(listed), f"1 to {MAX_CATALOG_ITEMS}")
        violations.raise_if_any()
    seen: set[int] = set()
    for index, item in enumerate(listed):
        violations.path = f"items[{index}]."
        violations.identifier("item_id", item.item_id)
        if item.item_id in seen:
            violations.add("item_id", item.item_id, "distinct items")
        seen.add(item.item_id)
        _check_item_key(violations, item)
        if item.category > MAX_CATEGORY:
            violations.add("category", item.category, f"at most {MAX_CATEGORY}")
        if item.HasField("created_at"):
            violations.stamp("created_at", True, item.created_at, None)
    violations.raise_if_any()


def _check_item_key(violations: _Violations, item: events_pb2.Item) -> None:
    """An item known only by its number has no key; a key that is given must be that item's."""
    if not item.item_key:
        return
    if len(item.item_key) > MAX_ITEM_KEY_CHARS:
        violations.add("item_key", f"{len(item.item_key)} characters", f"at most {MAX_ITEM_KEY_CHARS}")
    elif hash_key(item.item_key) != item.item_id:
        violations.add("item_key", item.item_key, f"a key whose xxh64 is {item.item_id}")


def check_barrier(barrier_id: str, present: bool, occurred_at: Timestamp, bounds: TimeBounds) -> None:
    """Raises InvalidInput. A barrier may lie in the past: it is a promise, not an event."""
    violations = _Violations()
    violations.text("barrier_id", barrier_id, MAX_BARRIER_ID_CHARS)
    violations.stamp("occurred_at", present, occurred_at, TimeBounds(0, bounds.latest_us))
    violations.raise_if_any()
