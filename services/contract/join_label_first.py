"""The join in another order of reading: labels first, a snapshot when no label of it can follow.

The set said is a function of the three prefixes (join.py), so a host may read impressions and actions at once
and each snapshot only when every label of it is in (``LabelFirstTask.labels_in``): the log is the buffer in
which snapshots wait, and memory holds what is small. For that order to pay, two things may not wait
for the clock of the snapshots, which lags by design:

- an impression closes when its snapshot is taken and the *labels' watermark* (min over impressions and
  actions) is above its window, whichever comes last: no action in the window can follow;
- a snapshot without an impression is let go when the labels' watermark is above the time in which one could
  be shown. Only the tombstone stays, for repeats.

All else keeps its rule. Both are functions of the prefixes too, so a replay finds what had been said. Which
snapshots are late, lost or second ones does not change, hence neither does the final set.

``complete`` makes a slim snapshot whole (batch_view). It is called when one is taken; and at once for one
that has to be kept, since what it is completed from may be gone from the host's memory later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rec.events.v1 import events_pb2 as ev
from services.contract import join_rules as rules
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.join_events import Source
from services.contract.join_matching import Matching
from services.contract.join_output import Reason, Rejected
from services.contract.join_position import NEVER_US, Position
from services.contract.join_scan import scored_of
from services.contract.join_state import Held, Shown, Snap
from services.contract.join_timers import Timers

# Fills a snapshot's columns in place; says why it cannot, having changed nothing.
Complete = Callable[[ev.FeatureSnapshot], str | None]


def whole(snapshot: ev.FeatureSnapshot) -> str | None:
    """For snapshots that carry everything."""
    return "a slim snapshot, and no batch features at hand" if snapshot.HasField("slim") else None


class LabelFirst(Matching):
    """Matching with a second clock: that of the labels."""

    def __init__(self, config: JoinConfig, evicted_us: int, complete: Complete) -> None:
        super().__init__(config, evicted_us)
        self._complete = complete
        self._labels_us = NEVER_US
        self._labels_floor_us = NEVER_US
        self._label_timers = Timers[Held]()
        # Open impressions whose snapshot is there and cannot be made whole.
        self._lost: set[int] = set()

    def add_snapshot(self, snap: Snap) -> None:
        """As ever; one that nothing shows is let go when nothing can."""
        super().add_snapshot(snap)
        if snap.event is not None:
            shown_by_us = snap.occurred_us + self.config.show_us
            if self._labels_us > shown_by_us:
                self._let_go(snap)
            else:
                self._await_labels(snap, shown_by_us)
                self._make_whole(snap)

    def add_impression(self, shown: Shown) -> None:
        """As ever, and due by the labels' clock too."""
        super().add_impression(shown)
        if shown.open:
            self._await_labels(shown, shown.occurred_us + self.config.window_us)

    def advance_labels(self, watermark_us: int) -> None:
        """The labels' watermark has moved."""
        self._labels_us = watermark_us
        for held in self._label_timers.due(watermark_us):
            if isinstance(held, Shown):
                self._close_labelled(held)
            elif isinstance(held, Snap) and held.event is not None and not held.released:
                self._let_go(held)

    def pass_labels_floor(self, floor_us: int) -> None:
        """A barrier has come on both inputs of labels."""
        self._labels_floor_us = floor_us
        for shown in [shown for shown in self._open.values() if shown.occurred_us < floor_us]:
            self._close_labelled(shown)

    def _take_rows(self, snap: Snap, shown: Shown) -> None:
        if id(shown) in self._lost:
            return
        if why := self._make_whole(snap):
            self._lose(snap, shown, why)
        else:
            super()._take_rows(snap, shown)
        self._close_labelled(shown)

    def _make_whole(self, snap: Snap) -> str:
        """Why it cannot be; empty when it is."""
        if snap.event is None or (message := snap.event.slim) is None:
            return ""
        if (why := self._complete(message)) is None:
            snap.event = scored_of(message, snap.occurred_us)
            self._resize(snap, message.ByteSize())
            return ""
        return why

    def _close_labelled(self, shown: Shown) -> None:
        if (
            shown.open
            and (shown.rows is not None or id(shown) in self._lost)
            and rules.window_over(self.config, shown, self._labels_us, self._labels_floor_us)
        ):
            self._close(shown)

    def _lose(self, snap: Snap, shown: Shown, why: str) -> None:
        """The impression closes when it would have with its rows: a replay that finds the features again, or
        no longer, must not say its items a second time."""
        assert snap.event is not None
        raw = ev.EventRecord(snapshot=snap.event.slim).SerializeToString()
        self.out.append(
            Rejected(Reason.FEATURES_LOST, Source.SNAPSHOTS, snap.offset, raw, snap.request_id, detail=why)
        )
        self._lost.add(id(shown))
        snap.event = None
        snap.hold_us = max(snap.hold_us, shown.occurred_us + self.config.window_us)
        self._resize(snap, 0)

    def _close(self, shown: Shown, evicted: bool = False) -> None:
        self._lost.discard(id(shown))
        super()._close(shown, evicted)

    def _let_go(self, snap: Snap) -> None:
        snap.event = None
        self.not_shown += 1
        self._resize(snap, 0)

    def _await_labels(self, held: Held, due_us: int) -> None:
        self._label_timers.arm(due_us, held)

    def _sweep_timers(self) -> None:
        super()._sweep_timers()
        self._label_timers.keep(lambda held: not held.released)


class LabelFirstTask(JoinTask):
    """A JoinTask for a host that reads labels first; any other order gives the same set, in more memory."""

    def __init__(
        self,
        config: JoinConfig,
        positions: Mapping[Source, Position] | None = None,
        complete: Complete = whole,
    ) -> None:
        self._complete = complete
        self.labels_us = NEVER_US
        self.labels_floor_us = NEVER_US
        super().__init__(config, positions)

    def labels_in(self, occurred_us: int) -> bool:
        """Whether nothing can follow that would label a snapshot of this time. (Behind a barrier of both
        label inputs: nothing that its source had not promised away.)"""
        config = self.config
        return (
            self.labels_us > occurred_us + config.show_us + config.window_us
            or self.labels_floor_us > occurred_us
        )

    def _new_matching(self, evicted_us: int) -> LabelFirst:
        self._by_labels = LabelFirst(self.config, evicted_us, self._complete)
        return self._by_labels

    def _settle_clocks(self) -> None:
        _, shown, acted = self.inputs
        floor_us = min(shown.floor_us, acted.floor_us)
        labels_us = min(shown.watermark_us, acted.watermark_us)
        if floor_us > self.labels_floor_us:
            self.labels_floor_us = floor_us
            self._by_labels.pass_labels_floor(floor_us)
        if labels_us > self.labels_us:
            self.labels_us = labels_us
            self._by_labels.advance_labels(labels_us)
        super()._settle_clocks()
        self._settled_us = self.labels_us
