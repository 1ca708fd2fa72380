"""The state of one entity under one view, and the fold of events into it. Event time only, integers only.

Any order of the same events gives the same bytes. Repeats are not recognised here: the marks (view_fold) drop
them before.
"""

from __future__ import annotations

from typing import Any

from services.contract.errors import MalformedRecord
from services.contract.view_events import Event
from services.contract.view_plan import MASK64, MERGE, NONE_US, STATE_VERSION, Plan


class ViewState:
    """Mutable; packed only when it is written.

    bases and tiles: per slot (None where a slot has no base); tiles newest first. recents: per list, tuples
    (occurred_us, event hash, *fields), newest first.
    """

    __slots__ = ("bases", "newest_us", "plan", "recents", "tiles")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.newest_us = NONE_US
        self.bases: list[Any] = [slot.identity if slot.has_base else None for slot in plan.slots]
        self.tiles: list[list[Any]] = [[slot.identity] * slot.tiles for slot in plan.slots]
        self.recents: list[list[tuple[int, ...]]] = [[] for _ in plan.recents]

    def fold(self, event: Event) -> None:
        """One event that the view takes."""
        at_us, hop_us = event.occurred_us, self.plan.view.hop_us
        if at_us > self.newest_us:
            if self.newest_us != NONE_US:
                self._advance(at_us // hop_us - self.newest_us // hop_us)
            self.newest_us = at_us
        age = self.newest_us // hop_us - at_us // hop_us
        for index, slot in enumerate(self.plan.slots):
            if not slot.events.takes(event):
                continue
            merge = MERGE[slot.monoid]
            if age < slot.tiles:
                tiles = self.tiles[index]
                tiles[age] = merge(tiles[age], slot.lift(event))
            elif slot.has_base:
                self.bases[index] = merge(self.bases[index], slot.lift(event))
        for index, recent in enumerate(self.plan.recents):
            if recent.events.takes(event):
                values = (event.fields[name] & MASK64 for name in recent.fields)
                self._keep(index, recent.keep, (at_us, event.event_hash, *values))

    def _advance(self, hops: int) -> None:
        """The newest hop moves on; tiles that leave go into the base."""
        if hops == 0:
            return
        for index, slot in enumerate(self.plan.slots):
            tiles = self.tiles[index]
            shift = min(hops, slot.tiles)
            if slot.has_base:
                merge = MERGE[slot.monoid]
                for left in tiles[slot.tiles - shift :]:
                    self.bases[index] = merge(self.bases[index], left)
            self.tiles[index] = [slot.identity] * shift + tiles[: slot.tiles - shift]

    def _keep(self, index: int, keep: int, entry: tuple[int, ...]) -> None:
        entries = self.recents[index]
        if entry not in entries:
            entries.append(entry)
            entries.sort(reverse=True)
            del entries[keep:]

    def pack(self) -> bytes:
        """As view_plan says. struct.error when a tile's count does not fit: 2**32 events of one entity."""
        named: dict[str, Any] = {}
        for index, slot in enumerate(self.plan.slots):
            tiles = self.tiles[index]
            named[f"tiles{index}"] = [b"".join(tiles)] if slot.registers else tiles
            named[f"base{index}"] = [self.bases[index]]
        for index, recent in enumerate(self.plan.recents):
            empty = recent.keep - len(self.recents[index])
            filled = self.recents[index] + [(NONE_US, 0, *(0 for _ in recent.fields))] * empty
            for name, run in zip(("us", "hash", *recent.fields), zip(*filled, strict=True), strict=True):
                named[f"recent{index}_{name}"] = run
        values: list[Any] = [STATE_VERSION, self.plan.fingerprint, self.newest_us]
        for column in self.plan.columns:
            values += named[column.name]
        return self.plan.layout.pack(*values)

    @classmethod
    def unpack(cls, plan: Plan, value: bytes) -> ViewState:
        """MalformedRecord when the bytes are no state of this view."""
        if not plan.readable(value):
            allowed = f"{plan.layout.size} bytes, version {STATE_VERSION}, of {plan.view.name}"
            raise MalformedRecord.one("view state", f"{len(value)} bytes", allowed)
        state = cls(plan)
        _, _, state.newest_us, *rest = plan.layout.unpack(value)
        named: dict[str, Any] = {}
        at = 0
        for column in plan.columns:
            count = 1 if column.code == "B" else column.count
            named[column.name] = rest[at : at + count]
            at += count
        for index, slot in enumerate(plan.slots):
            tiles = named[f"tiles{index}"]
            m = slot.registers
            state.tiles[index] = [tiles[0][i : i + m] for i in range(0, len(tiles[0]), m)] if m else tiles
            if slot.has_base:
                state.bases[index] = named[f"base{index}"][0]
        for index, recent in enumerate(plan.recents):
            columns = [named[f"recent{index}_{name}"] for name in ("us", "hash", *recent.fields)]
            state.recents[index] = [entry for entry in zip(*columns, strict=True) if entry[0] != NONE_US]
        return state
