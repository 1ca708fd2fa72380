"""What a join remembers: one object per accepted record, and the clock of each input.

An object is *held* until the watermark has passed ``hold_us``; the oldest held object of an input is where
its replay starts. Objects of one request id are chained by ``older`` (more than one only when a request id
is used again, much later).
"""

from __future__ import annotations

from collections import deque
from typing import Any

from services.contract.join_events import Source
from services.contract.join_labels import Label
from services.contract.join_position import NEVER_US, Position
from services.contract.join_rows import ShownRows
from services.contract.join_scan import Done, Event, Listed, Scored


class Held:
    """Base: where the record stands and how long it matters."""

    __slots__ = (
        "clock_us",
        "event_id",
        "floor_us",
        "hold_us",
        "occurred_us",
        "offset",
        "older",
        "released",
        "request_id",
        "seconds",
        "size",
    )

    def __init__(self, clock: InputClock, offset: int, event: Event, size: int) -> None:
        self.offset = offset
        self.clock_us = clock.clock_us
        self.floor_us = clock.floor_us
        self.occurred_us = event.occurred_us
        self.event_id = event.event_id
        self.request_id = event.request_id
        # Bytes of payload that it keeps alive.
        self.size = size
        self.hold_us = NEVER_US
        self.released = False
        self.older: Any = None
        # (event id, time) of the records refused because this one was there: their repeats are repeats.
        self.seconds: list[tuple[str, int]] | None = None


class Snap(Held):
    """A snapshot; ``event`` goes when its impression has taken the shown rows."""

    __slots__ = ("event",)

    def __init__(self, clock: InputClock, offset: int, event: Scored, size: int) -> None:
        super().__init__(clock, offset, event, size)
        self.event: Scored | None = event


class Shown(Held):
    """An impression. Open until its window is over; then only a tombstone is left."""

    __slots__ = (
        "absent",
        "early_passed",
        "item_ids",
        "labels",
        "open",
        "positions",
        "raw",
        "rows",
        "said",
        "scored",
        "settled",
        "unscored",
        "waiting",
    )

    def __init__(self, clock: InputClock, offset: int, event: Listed, raw: bytes) -> None:
        super().__init__(clock, offset, event, len(raw))
        self.raw = raw
        self.unscored = event.unscored
        self.open = not self.unscored
        # Columns as in Listed; ``absent``: those of the items that are not among the scored.
        self.item_ids = event.item_ids
        self.positions = event.positions
        self.absent = b""
        # While it is open and its snapshot has come (``scored`` stays).
        self.rows: ShownRows | None = None
        self.scored = False
        # Row -> what its actions have made of it; row -> how often it was said.
        self.labels: dict[int, Label] = {}
        self.said: dict[int, int] = {}
        # Actions in the window, in their order, that came before the snapshot or before their turn.
        self.waiting: list[Acted] = []
        # The watermark is above impression + JoinConfig.instant_us; and what waited for that has been said.
        self.early_passed = False
        self.settled = False

    @property
    def items(self) -> int:
        """How many it shows."""
        return len(self.item_ids) // 8


class Acted(Held):
    """An action; ``raw`` goes when its outcome is known."""

    __slots__ = ("item_id", "kind", "pending", "raw")

    def __init__(self, clock: InputClock, offset: int, event: Done, raw: bytes) -> None:
        super().__init__(clock, offset, event, len(raw))
        self.item_id = event.item_id
        self.kind = event.kind
        self.raw = raw
        # No impression that it is about has come yet.
        self.pending = False


class Mark(Held):
    """A barrier that has not yet come on all inputs."""

    __slots__ = ()

    def __init__(self, clock: InputClock, offset: int, occurred_us: int, barrier_id: str) -> None:
        super().__init__(clock, offset, Event(barrier_id, "", occurred_us), 0)


class InputClock:
    """One input: its event clock, its barrier floor, and which records are still held, in offset order."""

    __slots__ = ("bound_us", "clock_us", "floor_us", "held", "next_offset", "source", "watermark_us")

    def __init__(self, source: Source, bound_us: int, next_offset: int, clock_us: int, floor_us: int) -> None:
        self.source = source
        self.bound_us = bound_us
        self.next_offset = next_offset
        self.clock_us = clock_us
        self.floor_us = floor_us
        self.watermark_us = NEVER_US
        self.held: deque[Held] = deque()
        self._settle()

    def _settle(self) -> None:
        by_clock = self.clock_us - self.bound_us if self.clock_us > NEVER_US else NEVER_US
        self.watermark_us = max(by_clock, self.floor_us)

    def observe(self, occurred_us: int) -> None:
        """Moves the clock to the time of an event that is above it."""
        self.clock_us = occurred_us
        self._settle()

    def raise_floor(self, occurred_us: int) -> None:
        """A barrier: nothing earlier will follow."""
        self.floor_us = max(self.floor_us, occurred_us)
        self.clock_us = max(self.clock_us, occurred_us)
        self._settle()

    def low_water(self) -> tuple[int, int, int]:
        """(offset, event clock, floor) at the oldest record that still matters, or at the end."""
        held = self.held
        while held and held[0].released:
            held.popleft()
        if not held:
            return self.next_offset, self.clock_us, self.floor_us
        oldest = held[0]
        return oldest.offset, oldest.clock_us, oldest.floor_us

    def position(self, evicted_us: int, passed: tuple[str, ...], fingerprint: str) -> Position:
        """What a commit must say about this input now."""
        low, clock_us, floor_us = self.low_water()
        return Position(self.next_offset, low, clock_us, floor_us, evicted_us, passed, fingerprint)
