"""The state of one entity under one view, and the fold of events into it. Event time only, integers only.

Any order of the same events gives the same bytes. Repeats are not recognised here: the marks (view_fold) drop
them before.
"""

from __future__ import annotations

from typing import Any

from services.contract.errors import MalformedRecord
from services.contract.view_events import Event
from services.contract.view_plan import MASK64, MERGE, NONE_US, STATE_VERSION, Plan, Recent, Slot
from services.contract.view_registers import merge_registers

_NEWEST = 2


class ViewState:
    """``values``: what ``plan.layout`` packs, at ``plan.places``. Mutable."""

    __slots__ = ("plan", "values")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.values: list[Any] = plan.empty[:]

    @property
    def newest_us(self) -> int:
        """The largest occurred_at folded; NONE_US: none."""
        newest: int = self.values[_NEWEST]
        return newest

    def fold(self, event: Event) -> None:
        """One event that the view takes."""
        values, plan = self.values, self.plan
        at_us, hop_us, newest_us = event.occurred_us, plan.view.hop_us, values[_NEWEST]
        age = newest_us // hop_us - at_us // hop_us
        if at_us > newest_us:
            if newest_us != NONE_US and age:
                self._advance(-age)
            values[_NEWEST], age = at_us, 0
        for place in plan.places_of.get(event.kind, ()):
            of = place.of
            if of.events.where and not of.events.takes(event):
                continue
            if isinstance(of, Recent):
                self._keep(place.at, of, event)
            elif of.registers:
                self._register(place.at, place.base_at, of, age, event)
            elif age < of.tiles or place.base_at >= 0:
                at = place.at + age if age < of.tiles else place.base_at
                values[at] = MERGE[of.monoid](values[at], of.lift(event)) if of.value else values[at] + 1

    def tile(self, slot: int, age: int) -> Any:
        """Of a slot: the tile so many hops before the newest event's; ``identity`` outside of what is
        kept."""
        place = self.plan.places[slot]
        of = place.of
        assert isinstance(of, Slot)
        if not 0 <= age < of.tiles:
            return of.identity
        if of.registers:
            return self.values[place.at][age * of.registers : (age + 1) * of.registers]
        return self.values[place.at + age]

    def base(self, slot: int) -> Any:
        """Of a slot: everything older than its tiles; ``identity`` of one that keeps none."""
        place = self.plan.places[slot]
        assert isinstance(place.of, Slot)
        return self.values[place.base_at] if place.base_at >= 0 else place.of.identity

    def recent(self, index: int) -> list[tuple[int, ...]]:
        """Of a recent list: (occurred_us, event hash, *fields) each, newest first."""
        place = self.plan.places[len(self.plan.slots) + index]
        assert isinstance(place.of, Recent)
        return self._entries(place.at, place.of)

    def _entries(self, at: int, of: Recent) -> list[tuple[int, ...]]:
        columns = [self.values[i : i + of.keep] for i in range(at, at + of.width, of.keep)]
        return [entry for entry in zip(*columns, strict=True) if entry[0] != NONE_US]

    def _keep(self, at: int, of: Recent, event: Event) -> None:
        entry = (event.occurred_us, event.event_hash, *[event.fields[name] & MASK64 for name in of.fields])
        entries = self._entries(at, of)
        if entry in entries:
            return
        entries.append(entry)
        entries.sort(reverse=True)
        del entries[of.keep :]
        for column in zip(*entries, strict=True):
            self.values[at : at + len(column)] = column
            at += of.keep

    def _register(self, at: int, base_at: int, of: Slot, age: int, event: Event) -> None:
        values, m = self.values, of.registers
        if age < of.tiles:
            tiles, start = values[at], age * m
            merged = merge_registers(tiles[start : start + m], of.lift(event))
            values[at] = tiles[:start] + merged + tiles[start + m :]
        elif base_at >= 0:
            values[base_at] = merge_registers(values[base_at], of.lift(event))

    def _advance(self, hops: int) -> None:
        """The newest hop moves on; tiles that leave go into the base."""
        values = self.values
        for place in self.plan.places:
            of, at, base_at = place.of, place.at, place.base_at
            if isinstance(of, Recent):
                continue
            shift = min(hops, of.tiles)
            stay = of.tiles - shift
            if of.registers:
                tiles, m = values[at], of.registers
                for start in range(stay * m, of.tiles * m, m) if base_at >= 0 else ():
                    values[base_at] = merge_registers(values[base_at], tiles[start : start + m])
                values[at] = bytes(shift * m) + tiles[: stay * m]
                continue
            if base_at >= 0:
                merge = MERGE[of.monoid]
                for left in values[at + stay : at + of.tiles]:
                    values[base_at] = merge(values[base_at], left)
            values[at : at + of.tiles] = [of.identity] * shift + values[at : at + stay]

    def pack(self) -> bytes:
        """As view_plan says. struct.error when a tile's count does not fit: 2**32 events of one entity."""
        return self.plan.layout.pack(*self.values)

    @classmethod
    def unpack(cls, plan: Plan, value: bytes) -> ViewState:
        """MalformedRecord when the bytes are no state of this view."""
        if not plan.readable(value):
            allowed = f"{plan.layout.size} bytes, version {STATE_VERSION}, of {plan.view.name}"
            raise MalformedRecord.one("view state", f"{len(value)} bytes", allowed)
        state = cls.__new__(cls)
        state.plan = plan
        state.values = list(plan.layout.unpack(value))
        return state
