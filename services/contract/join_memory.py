"""What a join holds, how much that is, and when each thing is due. Knows no rule."""

from __future__ import annotations

from typing import Any

from services.contract.join_state import Acted, Held, Shown, Snap
from services.contract.join_timers import Timers


class Memory:
    """Held records by what finds them, and their timers."""

    def __init__(self) -> None:
        self.snaps: dict[str, Snap] = {}
        self.shown: dict[str, Shown] = {}
        self.acts: dict[tuple[str, int], Acted] = {}
        self.held_events = 0
        self.held_bytes = 0
        self.not_shown = 0
        self._timers = Timers[Held]()

    def _sweep_timers(self) -> None:
        self._timers.keep(lambda held: not held.released)

    def _hold(self, held: Held, hold_us: int, first_due_us: int | None = None) -> None:
        held.hold_us = hold_us
        self.held_events += 1
        self.held_bytes += held.size
        self._timers.arm(hold_us if first_due_us is None else first_due_us, held)

    def _resize(self, held: Held, size: int) -> None:
        self.held_bytes += size - held.size
        held.size = size

    def _release(self, held: Held) -> None:
        held.released = True
        self.held_events -= 1
        self._resize(held, 0)
        if isinstance(held, Snap):
            self.not_shown += held.event is not None
            held.event = None
            _unchain(self.snaps, held)
        elif isinstance(held, Shown):
            _unchain(self.shown, held)
        elif isinstance(held, Acted):
            del self.acts[held.event_id, held.occurred_us]


def _unchain(heads: dict[str, Any], held: Held) -> None:
    at = heads[held.request_id]
    if at is held:
        if held.older is None:
            del heads[held.request_id]
        else:
            heads[held.request_id] = held.older
        return
    while at.older is not held:
        at = at.older
    at.older = held.older
