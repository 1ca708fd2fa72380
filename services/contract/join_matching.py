"""The state of a join and its transitions: accepted events in, outputs out.

Life of an impression: open -> (snapshot taken: rows known) -> settled (no action that takes effect on
arrival can follow) -> closed by the watermark, a barrier or eviction -> released. Life of an action: pending
(no impression yet) or waiting (no snapshot yet, or not its turn yet) -> outcome -> released. The watermark
moves things on; it never decides which events belong together (join_rules does).
"""

from __future__ import annotations

from collections import deque

from services.contract import join_rules as rules
from services.contract.join_config import JoinConfig
from services.contract.join_events import Source
from services.contract.join_labels import keeps_negative, labelled
from services.contract.join_memory import Memory
from services.contract.join_output import Output, Reason, Rejected, Sample
from services.contract.join_position import NEVER_US
from services.contract.join_rows import ShownRows, find_row
from services.contract.join_state import Acted, Held, Mark, Shown, Snap

# Share of the held events that one eviction gives up, so that its scan is paid rarely.
EVICT_SHARE = 10


class Matching(Memory):
    """Snapshots, impressions and actions that still matter. Appends to ``out``."""

    def __init__(self, config: JoinConfig, evicted_us: int = NEVER_US) -> None:
        super().__init__()
        self.config = config
        self.out: list[Output] = []
        self.pending: dict[str, list[Acted]] = {}
        self.evicted_us = evicted_us
        self._open: dict[int, Shown] = {}
        self._labels = config.label_windows()
        self._rules = {rule.kind: rule for rule in config.labels}
        self._correcting = config.emission == "correcting"
        self._at_end = config.label_may_change and not self._correcting
        # Else every action takes effect on arrival.
        self._settles = self._correcting or self._at_end

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
        first_us = self.config.early_negative_us if self._correcting else self.config.window_us
        self._hold(shown, shown.occurred_us + self.config.memory_us, shown.occurred_us + first_us)
        if shown.unscored:
            self._reject_items(shown, Reason.UNSCORED, shown.items)
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
        for held in self._timers.due(watermark_us):
            if held.released:
                continue
            if isinstance(held, Shown) and held.open:
                if self._correcting and not held.early_passed:
                    self._pass_early(held)
                    continue
                self._close(held)
            elif isinstance(held, Acted) and held.pending:
                self._give_up(held, Reason.NO_IMPRESSION)
            if held.hold_us < watermark_us:
                self._release(held)
            else:
                self._timers.arm(held.hold_us, held)

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
        self._sweep_timers()
        return len(gone)

    # -- outcomes ----------------------------------------------------------------------------------------

    def _take_rows(self, snap: Snap, shown: Shown) -> None:
        if snap.event is None:
            return
        rows = shown.rows = ShownRows(snap.event, shown.item_ids, shown.positions, shown.occurred_us)
        shown.scored = True
        if rows.absent:
            shown.absent = rows.absent
            self._reject_items(shown, Reason.NOT_IN_SNAPSHOT, len(rows.absent) // 8, rows.absent)
        snap.event = None
        # Its replay must find the snapshot for as long as the impression is open.
        snap.hold_us = max(snap.hold_us, shown.occurred_us + self.config.window_us)
        self._resize(snap, 0)
        self._resize(shown, len(shown.raw) + rows.bytes_held())
        waiting, shown.waiting = shown.waiting, []
        for acted in waiting:
            self._apply(acted, shown)
        if shown.early_passed:
            self._settle(shown)

    def _settle_pending(self, shown: Shown) -> None:
        waiting = self.pending.get(shown.request_id)
        if waiting is None:
            return
        about = [acted for acted in waiting if rules.action_is_about(self.config, acted, shown)]
        for acted in about:
            self._unpend(acted)
            self._apply(acted, shown)

    def _apply(self, acted: Acted, shown: Shown) -> None:
        if not rules.action_in_window(acted, shown, self._labels[acted.kind][1]):
            self._reject_action(acted, Reason.AFTER_WINDOW)
        elif find_row(shown.item_ids, acted.item_id) < 0:
            self._reject_action(acted, Reason.NOT_IMPRESSED)
        elif shown.unscored:
            self._reject_action(acted, Reason.UNSCORED)
        elif not shown.scored:
            if shown.open:
                shown.waiting.append(acted)
            else:
                self._reject_action(acted, Reason.SNAPSHOT_LOST)
        elif shown.absent and find_row(shown.absent, acted.item_id) >= 0:
            self._reject_action(acted, Reason.NOT_IN_SNAPSHOT)
        elif not shown.open:
            self._reject_action(acted, Reason.ALREADY_LABELLED)
        elif self._settles and rules.action_waits(self.config, acted, shown):
            shown.waiting.append(acted)
        else:
            self._label(acted, shown)

    def _label(self, acted: Acted, shown: Shown) -> None:
        assert shown.rows is not None
        row = shown.rows.row_of(acted.item_id)
        before = shown.labels.get(row)
        after = labelled(self.config.reducer, before, self._rules[acted.kind], acted.occurred_us)
        shown.labels[row] = after
        if before is not None and after.value == before.value:
            self._reject_action(acted, Reason.ALREADY_LABELLED)
            return
        if not self._at_end:
            self._say_label(shown, row)
        self._done(acted)

    def _say_label(self, shown: Shown, row: int) -> None:
        assert shown.rows is not None
        label, version = shown.labels[row], shown.said.get(row, 0)
        shown.said[row] = version + 1
        data = shown.rows.positive(row, label.value, label.acted_us, version)
        self.out.append(Sample(data, shown.request_id, 1, True, correction=version > 0))

    def _pass_early(self, shown: Shown) -> None:
        """No action stamped up to the early negative can follow."""
        shown.early_passed = True
        if shown.rows is not None:
            self._settle(shown)
        self._timers.arm(shown.occurred_us + self.config.window_us, shown)

    def _settle(self, shown: Shown) -> None:
        """The actions that take effect on arrival are all in: early negatives, then the other actions."""
        shown.settled = True
        if self._correcting:
            self._say_negatives(shown, last=False)
        waiting, shown.waiting = shown.waiting, []
        for acted in waiting:
            self._label(acted, shown)
        if self._at_end:
            for row in sorted(shown.labels):
                self._say_label(shown, row)

    def _say_negatives(self, shown: Shown, last: bool) -> None:
        """What has not been said yet; ``last``: with a reason for what the sampling leaves out."""
        config, rows = self.config, shown.rows
        assert rows is not None
        left = kept = [row for row in range(rows.size) if row not in shown.said]
        if config.negative_rate < 1.0:
            ids, request, below = rows.item_ids(), shown.request_id, config.keep_below
            kept = [row for row in left if keeps_negative(request, ids[row], below)]
        if last and len(kept) < len(left):
            chosen = set(kept)
            dropped = [row for row in left if row not in chosen]
            self._reject_items(shown, Reason.SAMPLED_OUT, len(dropped), rows.ids_of(dropped))
        if kept:
            if not last:
                shown.said.update(dict.fromkeys(kept, 1))
            data = rows.negatives(kept, config.negative_rate)
            self.out.append(Sample(data, shown.request_id, len(kept), False))

    def _close(self, shown: Shown, evicted: bool = False) -> None:
        """The window is over: what no action has labelled is negative (or leaves with its reason)."""
        shown.open = False
        del self._open[id(shown)]
        lost = Reason.EVICTED if evicted else Reason.SNAPSHOT_LOST
        if shown.rows is None:
            self._reject_items(shown, lost, shown.items)
            self._reject_waiting(shown, lost)
        elif evicted:
            self._reject_waiting(shown, lost)
            left = [row for row in range(shown.rows.size) if row not in shown.said]
            if left:
                self._reject_items(shown, lost, len(left), shown.rows.ids_of(left))
        else:
            if self._settles and not shown.settled:
                self._settle(shown)
            self._say_negatives(shown, last=True)
        self._strip(shown)

    def _reject_waiting(self, shown: Shown, reason: Reason) -> None:
        for acted in shown.waiting:
            self._reject_action(acted, reason)
        shown.waiting = []

    def _strip(self, shown: Shown) -> None:
        """Leaves the tombstone: enough to name the reason of whatever still refers to it."""
        shown.rows = None
        shown.raw = b""
        shown.labels.clear()
        shown.said.clear()
        self._resize(shown, 0)

    def _reject_items(self, shown: Shown, reason: Reason, items: int, item_ids: bytes = b"") -> None:
        raw = b"" if reason is Reason.SAMPLED_OUT else shown.raw
        self.out.append(
            Rejected(reason, Source.IMPRESSIONS, shown.offset, raw, shown.request_id, items, item_ids)
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
