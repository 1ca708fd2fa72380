"""Events as feature views see them: declared kinds with integer fields, and what a filter may say.

An event is one record's part about one entity: who, when (``occurred_us``, event time), and where it stood in
the log (``origin`` = topic/partition, ``sequence`` strictly rising there). That place is its identity: a
redelivery repeats it, a client's second try that got another place is another event.

All values are integers, so that sums are exact in any order. A field with a ``scale`` holds fixed-point
numbers: value = stored / scale. A filter is data: conditions that all have to hold, each comparing a
declared field with constants. Nothing is ever evaluated as code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import Any

import xxhash

from services.contract import topics
from services.contract.errors import FieldViolation, MalformedRecord

# A stored value is below this in size: 2**23 of them still fit into a 64-bit sum.
MAX_NUMBER = 1 << 40
MAX_ID = (1 << 64) - 1
MAX_TIME_US = 1 << 60


@dataclass(frozen=True)
class EventField:
    """``type``: id (unsigned 64 bits, compared for equality only), number (below MAX_NUMBER in size), time
    (microseconds since 1970, below MAX_TIME_US in size; not to be summed)."""

    name: str
    type: str = "number"
    may_key: bool = False
    scale: int = 1


@dataclass(frozen=True)
class EventKind:
    """What may happen. ``code`` stands for it in columns."""

    name: str
    code: int
    topic: str
    fields: tuple[EventField, ...]


_USER = EventField("user_id", "id", may_key=True)
_ITEM = EventField("item_id", "id", may_key=True)
# Of the item, from the catalogue.
_CATEGORY = EventField("category", may_key=True)

# One item of an impression.
SHOWN = EventKind("shown", 1, topics.IMPRESSIONS.name, (_USER, _ITEM, _CATEGORY, EventField("position")))
# ``action`` is an ActionKind.
ACTED = EventKind(
    "acted",
    2,
    topics.ACTIONS.name,
    (_USER, _ITEM, _CATEGORY, EventField("action"), EventField("dwell_s", scale=1_000_000)),
)
# The catalogue says so. ``created_at``: the item's birth.
LISTED = EventKind("listed", 3, topics.CATALOG.name, (_ITEM, _CATEGORY, EventField("created_at", "time")))
KINDS: Mapping[str, EventKind] = MappingProxyType({kind.name: kind for kind in (SHOWN, ACTED, LISTED)})
FIELDS: Mapping[str, Mapping[str, EventField]] = MappingProxyType(
    {kind.name: MappingProxyType({field.name: field for field in kind.fields}) for kind in KINDS.values()}
)
ALL_FIELDS: Mapping[str, EventField] = MappingProxyType(
    {field.name: field for kind in KINDS.values() for field in kind.fields}
)


@dataclass(frozen=True)
class Condition:
    """``op`` is one of OPS; ``value`` is an integer, for ``in`` a tuple of them."""

    field: str
    op: str
    value: int | tuple[int, ...]

    def holds(self, stored: Any) -> Any:
        """Of one stored integer (bool), or of a column (bool each)."""
        if self.op == "in":
            assert isinstance(self.value, tuple)
            found = stored == self.value[0]
            for other in self.value[1:]:
                found = found | (stored == other)
            return found
        return OPS[self.op](stored, self.value)


OPS: Mapping[str, Any] = MappingProxyType(
    {
        "eq": lambda a, b: a == b,
        "ne": lambda a, b: a != b,
        "lt": lambda a, b: a < b,
        "le": lambda a, b: a <= b,
        "gt": lambda a, b: a > b,
        "ge": lambda a, b: a >= b,
        "in": None,
    }
)
ID_OPS = ("eq", "ne", "in")
MAX_IN = 64


@dataclass(frozen=True)
class Select:
    """Events of one kind for which all conditions hold."""

    kind: str
    where: tuple[Condition, ...] = ()

    def takes(self, event: Event) -> bool:
        """Whether an event is one of these."""
        if event.kind != self.kind:
            return False
        fields = event.fields
        return all(condition.holds(fields[condition.field]) for condition in self.where)


@dataclass(frozen=True, slots=True)
class Event:
    """MalformedRecord when a field of its kind is missing, unknown, or of the wrong type."""

    kind: str
    occurred_us: int
    event_hash: int
    fields: Mapping[str, int]
    origin: str = ""
    sequence: int = 0

    def __post_init__(self) -> None:
        declared = FIELDS.get(self.kind)
        if declared is None:
            raise MalformedRecord.one("kind", repr(self.kind), f"one of {', '.join(KINDS)}")
        bad = [
            FieldViolation(name, repr(self.fields.get(name, "missing"))[:100], _allowed(field))
            for name, field in declared.items()
            if not fits(field, self.fields.get(name))
        ]
        bad += [
            FieldViolation(name, "unknown", f"one of {', '.join(declared)}")
            for name in self.fields
            if name not in declared
        ]
        if not _whole(self.occurred_us) or abs(self.occurred_us) > MAX_TIME_US:
            bad.append(FieldViolation("occurred_us", repr(self.occurred_us)[:100], "microseconds, an int"))
        if not _whole(self.event_hash) or not 0 <= self.event_hash <= MAX_ID:
            bad.append(FieldViolation("event_hash", repr(self.event_hash)[:100], "an unsigned 64-bit int"))
        if bad:
            raise MalformedRecord(bad)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def fits(field: EventField, value: object) -> bool:
    """Whether a value may be stored in a field."""
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    if field.type == "id":
        return 0 <= value <= MAX_ID
    return abs(value) < (MAX_TIME_US if field.type == "time" else MAX_NUMBER)


def _allowed(field: EventField) -> str:
    size = {"id": "an unsigned 64-bit int", "time": "an int below 2**60 in size"}
    return size.get(field.type, "an int below 2**40 in size")


def fixed_point(field: EventField, value: float) -> int:
    """The stored integer of a measured value: the nearest, ties to even. MalformedRecord: too large."""
    stored = round(value * field.scale) if isfinite(value) else MAX_NUMBER
    if not fits(field, stored):
        raise MalformedRecord.one(field.name, value, f"finite, below 2**40 / {field.scale} in size")
    return stored


def event_hash(event_id: str) -> int:
    """Breaks ties between events of the same microsecond: xxh64 of the event id, seed 0. For an item of an
    impression it is XORed with the item's id: an impression is one event id and many events."""
    return xxhash.xxh64_intdigest(event_id.encode(), seed=0)
