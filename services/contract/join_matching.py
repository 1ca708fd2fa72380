"""The state of a join and its transitions: accepted events in, outputs out.

Life of an impression: open -> (snapshot taken: rows known) -> closed by the watermark, a barrier or
eviction -> released. Life of an action: pending (no impression yet) or waiting (no snapshot yet) -> outcome
-> released. The watermark moves things on; it never decides which events belong together (join_rules does).
"""

from __future__ import annotations

import heapq
import struct
from collections import deque
from typing import Any

from services.contract import join_rules as rules
from services.contract.join_config import JoinConfig
from services.contract.join_events import Source
from services.contract.join_output import Output, Reason, Rejected, Sample
from services.contract.join_position import NEVER_US
from services.contract.join_rows import ShownRows
from services.contract.join_state import Acted, Held, Mark, Shown, Snap

# Share of the held events that one eviction gives up, so that its scan is paid rarely.
EVICT_SHARE = 10


class Matching:
    """Snapshots, impressions and actions that still matter. Appends to ``out``."""

    def __init__(self, config: JoinConfig, evicted_us: int = NEVER_US) -> None:
        self.config = config
        self.out: list[Output] = []
        self.snaps: dict[str, Snap] = {}
        self.shown: dict[str, Shown] = {}
        self.acts: dict[tuple[str, int], Acted] = {}
        self.pending: dict[str, list[Acted]] = {}
        self.evicted_us = evicted_us
        self.held_events = 0
        self.held_bytes = 0
        self.not_shown = 0
        self._open: dict[int, Shown] = {}
        self._timers: list[tuple[int, int, Held]] = []
        self._timer_count = 0
        self._labels = config.label_windows()

    @property
    def open_impressions(self) -> int:
        """Impressions whose window is open."""
        return len(self._open)

    @property
    def pending_actions(self) -> int:
        """Actions that wait for their impression."""
        return sum(map(len, self.pending.values()))

    # -- events ------------------------------------------------------------------------------------------

    def add_snapshot(self, snap: Snap) -> None:
        """A snapshot that is neither late nor a repeat nor a second one."""
        snap.older = self.snaps.get(snap.request_id)
        self.snaps[snap.request_id] = snap
        self._hold(snap, snap.occurred_us + self.config.memory_us)
        shown = self.shown.get(snap.request_id)
        while shown is not None:
            if shown.open and shown.rows is None and rules.snapshot_belongs(self.config, snap, shown):
                self._take_rows(snap, shown)
                return
            shown = shown.older

    def add_impression(self, shown: Shown) -> None:
        """An impression that is neither late nor a repeat nor a second one."""
        shown.older = self.shown.get(shown.request_id)
        self.shown[shown.request_id] = shown
        self._hold(
            shown, shown.occurred_us + self.config.memory_us, shown.occurred_us + self.config.window_us
        )
        if shown.unscored:
            self._reject_items(shown, Reason.UNSCORED, len(shown.row_of))
            self._strip(shown)
        else:
            self._open[id(shown)] = shown
            snap = self.snaps.get(shown.request_id)
            while snap is not None:
                if rules.snapshot_belongs(self.config, snap, shown):
                    self._take_rows(snap, shown)
                    break
                snap = snap.older
        self._settle_pending(shown)

    def add_action(self, acted: Acted) -> None:
        """An action that is neither late nor a repeat."""
        self.acts[acted.event_id, acted.occurred_us] = acted
        memory_us = acted.occurred_us + self.config.memory_us
        if acted.kind not in self._labels:
            self._hold(acted, memory_us)
            self._reject_action(acted, Reason.NO_LABEL_RULE)
            return
        shown = self.shown.get(acted.request_id)
        while shown is not None:
            if rules.action_is_about(self.config, acted, shown):
                self._hold(acted, memory_us)
                self._apply(acted, shown)
                return
            shown = shown.older
        acted.pending = True
        self.pending.setdefault(acted.request_id, []).append(acted)
        self._hold(acted, memory_us, acted.occurred_us + self.config.skew_us)

    # -- time --------------------------------------------------------------------------------------------

    def advance(self, watermark_us: int) -> None:
        """Closes and releases what lies below the watermark of the task."""
        timers = self._timers
        while timers and timers[0][0] < watermark_us:
            _, _, held = heapq.heappop(timers)
            if held.released:
                continue
            if isinstance(held, Shown) and held.open:
                self._close(held)
            elif isinstance(held, Acted) and held.pending:
                self._give_up(held, Reason.NO_IMPRESSION)
            if held.hold_us < watermark_us:
                self._release(held)
            else:
                self._arm(held, held.hold_us)

    def pass_floor(self, floor_us: int) -> None:
        """A barrier has come on every input: closes all earlier impressions, gives up earlier lone
        actions."""
        for shown in sorted(
            (shown for shown in self._open.values() if shown.occurred_us < floor_us),
            key=lambda shown: shown.offset,
        ):
            self._close(shown)
        lone = [a for waiting in self.pending.values() for a in waiting if a.occurred_us < floor_us]
        for acted in sorted(lone, key=lambda acted: acted.offset):
            self._give_up(acted, Reason.NO_IMPRESSION)

    def evict(self, inputs: list[deque[Held]]) -> int:
        """Gives up the oldest tenth of the state, at least one event; returns how many events went.

        Everything that only impressions before ``evicted_us`` could need is dropped; their undecided items
        and actions leave with the reason ``evicted``. ``evicted_us`` never moves back and is part of the
        committed position. After a crash an action on such an impression may be explained once more.
        """
        held = [h for queue in inputs for h in queue if not h.released and not isinstance(h, Mark)]
        ages = sorted(rules.last_needed_by(self.config, h) for h in held)
        self.evicted_us = max(self.evicted_us, ages[len(ages) // EVICT_SHARE] + 1)
        gone = [h for h in held if rules.last_needed_by(self.config, h) < self.evicted_us]
        for h in gone:
            if isinstance(h, Shown) and h.open:
                self._close(h, evicted=True)
            elif isinstance(h, Acted) and h.pending:
                self._give_up(h, Reason.EVICTED)
        for h in gone:
            self._release(h)
        self._timers = [timer for timer in self._timers if not timer[2].released]
        heapq.heapify(self._timers)
        return len(gone)

    # -- outcomes ----------------------------------------------------------------------------------------

    def _take_rows(self, snap: Snap, shown: Shown) -> None:
        if snap.message is None or shown.message is None:
            return
        rows = shown.rows = ShownRows(snap.message, shown.message, shown.occurred_us)
        for row, item in enumerate(struct.unpack(f"<{rows.size}Q", rows.ids)):
            shown.row_of[item] = row
        if rows.absent:
            self._reject_items(shown, Reason.NOT_IN_SNAPSHOT, len(rows.absent) // 8, rows.absent)
        snap.message = shown.message = None
        # Its replay must find the snapshot for as long as the impression is open.
        snap.hold_us = max(snap.hold_us, shown.occurred_us + self.config.window_us)
        self._resize(snap, 0)
        self._resize(shown, len(shown.raw) + rows.bytes_held())
        waiting, shown.waiting = shown.waiting, []
        for acted in waiting:
            self._apply(acted, shown)

    def _settle_pending(self, shown: Shown) -> None:
        waiting = self.pending.get(shown.request_id)
        if waiting is None:
            return
        about = [acted for acted in waiting if rules.action_is_about(self.config, acted, shown)]
        for acted in about:
            self._unpend(acted)
            self._apply(acted, shown)

    def _apply(self, acted: Acted, shown: Shown) -> None:
        label, window_us = self._labels[acted.kind]
        row = shown.row_of.get(acted.item_id)
        if not rules.action_in_window(acted, shown, window_us):
            self._reject_action(acted, Reason.AFTER_WINDOW)
        elif row is None:
            self._reject_action(acted, Reason.NOT_IMPRESSED)
        elif shown.unscored:
            self._reject_action(acted, Reason.UNSCORED)
        elif shown.rows is None:
            if shown.open:
                shown.waiting.append(acted)
            else:
                self._reject_action(acted, Reason.SNAPSHOT_LOST)
        elif row < 0:
            self._reject_action(acted, Reason.NOT_IN_SNAPSHOT)
        elif row in shown.decided or not shown.open:
            self._reject_action(acted, Reason.ALREADY_LABELLED)
        else:
            shown.decided.add(row)
            message = shown.rows.positive(row, label, acted.occurred_us)
            self.out.append(Sample(message, 1, True))
            self._done(acted)

    def _close(self, shown: Shown, evicted: bool = False) -> None:
        """The window is over: what no action has labelled is negative (or leaves with its reason)."""
        shown.open = False
        del self._open[id(shown)]
        lost = Reason.EVICTED if evicted else Reason.SNAPSHOT_LOST
        if shown.rows is None:
            self._reject_items(shown, lost, len(shown.row_of))
            for acted in shown.waiting:
                self._reject_action(acted, lost)
            shown.waiting = []
        else:
            left = [row for row in range(shown.rows.size) if row not in shown.decided]
            if left and evicted:
                ids = b"".join([shown.rows.ids[8 * row : 8 * row + 8] for row in left])
                self._reject_items(shown, Reason.EVICTED, len(left), ids)
            elif left:
                self.out.append(Sample(shown.rows.negatives(left), len(left), False))
        self._strip(shown)

    def _strip(self, shown: Shown) -> None:
        """Leaves the tombstone: enough to name the reason of whatever still refers to it."""
        if shown.rows is not None:
            shown.rows.drop()
        shown.raw = b""
        shown.message = None
        self._resize(shown, 0)

    def _reject_items(self, shown: Shown, reason: Reason, items: int, item_ids: bytes = b"") -> None:
        self.out.append(
            Rejected(reason, Source.IMPRESSIONS, shown.offset, shown.raw, shown.request_id, items, item_ids)
        )

    def _reject_action(self, acted: Acted, reason: Reason) -> None:
        self.out.append(Rejected(reason, Source.ACTIONS, acted.offset, acted.raw, acted.request_id))
        self._done(acted)

    def _give_up(self, acted: Acted, reason: Reason) -> None:
        self._unpend(acted)
        self._reject_action(acted, reason)

    def _unpend(self, acted: Acted) -> None:
        acted.pending = False
        waiting = self.pending[acted.request_id]
        waiting.remove(acted)
        if not waiting:
            del self.pending[acted.request_id]

    def _done(self, acted: Acted) -> None:
        acted.raw = b""
        self._resize(acted, 0)

    # -- keeping -----------------------------------------------------------------------------------------

    def _hold(self, held: Held, hold_us: int, first_due_us: int | None = None) -> None:
        held.hold_us = hold_us
        self.held_events += 1
        self.held_bytes += held.size
        self._arm(held, hold_us if first_due_us is None else first_due_us)

    def _arm(self, held: Held, due_us: int) -> None:
        self._timer_count += 1
        heapq.heappush(self._timers, (due_us, self._timer_count, held))

    def _resize(self, held: Held, size: int) -> None:
        self.held_bytes += size - held.size
        held.size = size

    def _release(self, held: Held) -> None:
        held.released = True
        self.held_events -= 1
        self._resize(held, 0)
        if isinstance(held, Snap):
            self.not_shown += held.message is not None
            held.message = None
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
