"""How a view's state is laid out: which integers per tile, how many tiles, at which byte.

Features that need the same number share a *slot* (the count of impressions serves counts, rates and decays).
A slot is a monoid over events: ``add``, ``min``, ``max`` of 64 bits, counts as 32 bits in a tile, or
HyperLogLog ``registers`` (element-wise maximum of bytes). It has tiles for the hops newest - tiles + 1 ..
newest, and, when a feature looks at all time, a base: everything older. A *recent* list holds events
themselves.

The bytes of one entity (little-endian, a multiple of 8, the same size for all entities of a view, so that
values joined are one numpy array):

    u8 state version, 3 zero, u32 low half of the definition hash, i64 newest occurred_at (NONE_US: no event)
    bases, tiles (newest first) and recent lists (newest first, NONE_US = empty place), widest values first
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from services.contract.errors import InvalidInput
from services.contract.feature_view import SPARE, FeatureView
from services.contract.view_aggregates import (
    Count,
    Decayed,
    Distinct,
    Elapsed,
    Instant,
    LastK,
    Max,
    Mean,
    Min,
    Ratio,
    Sum,
)
from services.contract.view_events import Event, Select
from services.contract.view_registers import merge_registers, one_register

STATE_VERSION = 1
NONE_US = -(1 << 63)
MAX_STATE_BYTES = 64 * 1024
MASK64 = (1 << 64) - 1
_HEAD = "<B3xIq"
_WIDTH = {"q": 8, "Q": 8, "I": 4, "B": 1}

MERGE: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "min": min,
    "max": max,
    "registers": merge_registers,
}


@dataclass(frozen=True)
class Slot:
    """``value``: the field it looks at, ``occurred_us``, or "" for a count."""

    monoid: str
    events: Select
    value: str
    registers: int = 0
    tiles: int = 0
    has_base: bool = False

    @cached_property
    def identity(self) -> Any:
        """Of nothing."""
        if self.monoid == "registers":
            return bytes(self.registers)
        return {"add": 0, "min": (1 << 63) - 1, "max": NONE_US}[self.monoid]

    @property
    def code(self) -> str:
        """The struct code of a tile."""
        return "B" if self.registers else "q" if self.value else "I"

    def lift(self, event: Event) -> Any:
        """The value of one event."""
        if not self.value:
            return 1
        stored = event.occurred_us if self.value == "occurred_us" else event.fields[self.value]
        return one_register(stored, self.registers) if self.registers else stored


@dataclass(frozen=True)
class Recent:
    """The ``keep`` newest of some events, as (occurred_us, event hash, *fields)."""

    events: Select
    fields: tuple[str, ...]
    keep: int = 0

    @property
    def width(self) -> int:
        """Values in all its columns."""
        return (2 + len(self.fields)) * self.keep


@dataclass(frozen=True)
class Column:
    """One run of values in the bytes; ``identity``: of nothing."""

    name: str
    code: str
    count: int
    registers: int = 0
    identity: int = 0


@dataclass(frozen=True)
class Place:
    """Where a slot or a recent list stands among the values that ``Plan.layout`` packs: of a slot its tiles
    (registers: all of them in one bytes) and its base (-1: none), of a list its columns, one after the other.
    """

    of: Slot | Recent
    at: int
    base_at: int = -1


@dataclass(frozen=True)
class Plan:
    """``uses[i]``: the slots of feature i, or its one recent list."""

    view: FeatureView
    slots: tuple[Slot, ...]
    recents: tuple[Recent, ...]
    uses: tuple[tuple[int, ...], ...]
    columns: tuple[Column, ...]
    layout: struct.Struct = field(compare=False)
    dtype: np.dtype = field(compare=False)

    @cached_property
    def fingerprint(self) -> int:
        """Stands in every state, so that none is read under another definition."""
        return self.view.definition_hash & (1 << 32) - 1

    @cached_property
    def empty(self) -> list[Any]:
        """The values of an entity of which nothing is known."""
        values: list[Any] = [STATE_VERSION, self.fingerprint, NONE_US]
        for column in self.columns:
            values += [bytes(column.count)] if column.registers else [column.identity] * column.count
        return values

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Of each slot, then of each recent list."""
        at, next_at = {}, 3
        for column in self.columns:
            at[column.name] = next_at
            next_at += 1 if column.registers else column.count
        slots = [Place(slot, at[f"tiles{i}"], at.get(f"base{i}", -1)) for i, slot in enumerate(self.slots)]
        return (*slots, *(Place(recent, at[f"recent{i}_us"]) for i, recent in enumerate(self.recents)))

    @cached_property
    def places_of(self) -> dict[str, tuple[Place, ...]]:
        """Those that look at events of a kind."""
        kinds = {place.of.events.kind for place in self.places}
        return {kind: tuple(p for p in self.places if p.of.events.kind == kind) for kind in kinds}

    def readable(self, value: bytes | None) -> bool:
        """Whether bytes are a state of this view."""
        return (
            value is not None
            and len(value) == self.layout.size
            and value[0] == STATE_VERSION
            and int.from_bytes(value[4:8], "little") == self.fingerprint
        )


def _count(events: Select) -> Slot:
    return Slot("add", events, "")


_NEEDS: dict[type, Callable[[Any], tuple[Slot, ...] | Recent]] = {
    Count: lambda a: (_count(a.events),),
    Decayed: lambda a: (_count(a.events),),
    Sum: lambda a: (Slot("add", a.events, a.field),),
    Min: lambda a: (Slot("min", a.events, a.field),),
    Max: lambda a: (Slot("max", a.events, a.field),),
    Mean: lambda a: (Slot("add", a.events, a.field), _count(a.events)),
    Ratio: lambda a: (_count(a.events), _count(a.hits)),
    Distinct: lambda a: (Slot("registers", a.events, a.field, 1 << a.precision),),
    Elapsed: lambda a: (Slot("min" if a.which == "first" else "max", a.events, "occurred_us"),),
    LastK: lambda a: Recent(a.events, a.fields, a.k + SPARE),
    Instant: lambda a: (),
}


@lru_cache(maxsize=1024)
def plan_of(view: FeatureView) -> Plan:
    """InvalidInput when a state would be larger than MAX_STATE_BYTES."""
    # Bare slot -> (tiles, has_base); bare list -> keep. In order of first use.
    slots: dict[Slot, tuple[int, bool]] = {}
    recents: dict[Recent, int] = {}
    needs = [_NEEDS[type(feature.aggregate)](feature.aggregate) for feature in view.features]
    for feature, need in zip(view.features, needs, strict=True):
        if isinstance(need, Recent):
            bare = replace(need, keep=0)
            recents[bare] = max(recents.get(bare, 0), need.keep)
            continue
        for slot in need:
            tiles, has_base = slots.get(slot, (0, False))
            wanted = view.hops(feature) + view.slack_hops + 1
            slots[slot] = (max(tiles, wanted), has_base or not feature.window_us)
    return _laid_out(view, slots, recents, needs)


def _laid_out(
    view: FeatureView,
    slots: dict[Slot, tuple[int, bool]],
    recents: dict[Recent, int],
    needs: list[tuple[Slot, ...] | Recent],
) -> Plan:
    full = tuple(replace(slot, tiles=tiles, has_base=base) for slot, (tiles, base) in slots.items())
    lists = tuple(replace(recent, keep=keep) for recent, keep in recents.items())
    slot_at = {slot: index for index, slot in enumerate(slots)}
    list_at = {recent: index for index, recent in enumerate(recents)}
    uses = tuple(
        (list_at[replace(need, keep=0)],) if isinstance(need, Recent) else tuple(slot_at[s] for s in need)
        for need in needs
    )
    columns = tuple(sorted(_columns(full, lists), key=lambda column: -_WIDTH[column.code]))
    layout = _struct(columns)
    if layout.size > MAX_STATE_BYTES:
        raise InvalidInput.one("view", f"{layout.size} bytes an entity", f"at most {MAX_STATE_BYTES}")
    return Plan(view, full, lists, uses, columns, layout, _dtype(columns, layout.size))


def _columns(slots: tuple[Slot, ...], recents: tuple[Recent, ...]) -> list[Column]:
    found = []
    for index, slot in enumerate(slots):
        width, identity = slot.registers or 1, 0 if slot.registers else slot.identity
        if slot.has_base:
            code = "B" if slot.registers else "q"
            found.append(Column(f"base{index}", code, width, slot.registers, identity))
        found.append(Column(f"tiles{index}", slot.code, slot.tiles * width, slot.registers, identity))
    for index, recent in enumerate(recents):
        found.append(Column(f"recent{index}_us", "q", recent.keep, identity=NONE_US))
        found.append(Column(f"recent{index}_hash", "Q", recent.keep))
        found += [Column(f"recent{index}_{name}", "Q", recent.keep) for name in recent.fields]
    return found


def _struct(columns: tuple[Column, ...]) -> struct.Struct:
    body = "".join(f"{column.count}{'s' if column.code == 'B' else column.code}" for column in columns)
    size = struct.calcsize(_HEAD + body)
    return struct.Struct(_HEAD + body + f"{-size % 8}x")


def _dtype(columns: tuple[Column, ...], size: int) -> np.dtype:
    names = ["version", "fingerprint", "newest_us"]
    formats: list[Any] = ["u1", "<u4", "<i8"]
    offsets = [0, 4, 8]
    at = struct.calcsize(_HEAD)
    for column in columns:
        names.append(column.name)
        one = {"q": "<i8", "Q": "<u8", "I": "<u4", "B": "u1"}[column.code]
        shape: tuple[int, ...] = (column.count,)
        if column.registers:
            shape = (column.count // column.registers, column.registers)
        formats.append((one, shape))
        offsets.append(at)
        at += _WIDTH[column.code] * column.count
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})
