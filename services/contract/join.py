"""The join of snapshots, impressions and actions into training samples: one pure state machine per partition.

Inputs are the records of one partition of three topics, each in its offset order, in any interleaving. The
set of everything said is a function of the three prefixes fed, not of their interleaving, because

- lateness, repeats and second impressions are judged by the record's own input alone (its event clock and
  barrier floor at lower offsets);
- which events are about each other is a matter of their times alone (join_rules);
- the watermark (min over the inputs) only says when nothing can follow that would change an outcome.

So a host may stop anywhere: it commits ``positions()`` with the outputs, and a new owner builds
``JoinTask.restore`` from them, feeds the records from ``replay_from`` to ``replay_until`` (nothing is
said), calls ``end_replay`` and goes on.

When a row is said, how often, and with which label is the matter of join_config. An action at exactly
impression + window counts; the window closes when the watermark is above that. A repeat is a record with the
event id and time of an earlier one of its input; it is suppressed for ``JoinConfig.memory_us`` (by the
input's watermark) and is ``late`` after that. No I/O, no clock, no randomness here.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from services.contract import join_rules as rules
from services.contract.errors import Conflict
from services.contract.join_config import JoinConfig
from services.contract.join_events import NAMES, SOURCES, Malformed, Source, decode
from services.contract.join_matching import Matching
from services.contract.join_output import BarrierPassed, Output, Reason, Rejected, Sample
from services.contract.join_position import MAX_PASSED, NEVER_US, Position, start
from services.contract.join_scan import Done, Event, Listed, Scored, of_message, scan
from services.contract.join_state import Acted, Held, InputClock, Mark, Shown, Snap

# Barriers that may be under way at once; the oldest is dropped beyond that, and counted.
MAX_PENDING_BARRIERS = 256


@dataclass
class JoinStats:
    """Counters since the task began to speak (a replay is not counted)."""

    records: Counter[str] = field(default_factory=Counter)
    repeats: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    # Impressed items by what became of them: positive, negative, or the reason. On top: correction (rows
    # said anew).
    items: Counter[str] = field(default_factory=Counter)
    barriers_passed: int = 0
    barriers_repeated: int = 0
    barriers_dropped: int = 0
    evicted_events: int = 0
    not_shown_replayed: int = 0


class OtherRules(Conflict):
    """The committed state was built under another configuration."""


class JoinTask:
    """The join of one partition. Not thread-safe; every method is synchronous."""

    # The inputs that are fed; all of them must show a barrier before it has passed.
    sources: ClassVar[tuple[Source, ...]] = SOURCES

    def __init__(self, config: JoinConfig, positions: Mapping[Source, Position] | None = None) -> None:
        """From the beginning of the inputs, or where ``positions`` say (``restore`` explains)."""
        at = dict.fromkeys(SOURCES, start(0)) if positions is None else dict(positions)
        if set(at) != set(SOURCES):
            raise Conflict(f"positions of {sorted(at)} instead of all three inputs")
        held = any(p.low_offset < p.offset for p in at.values())
        for source, position in at.items():
            if held and position.fingerprint not in ("", config.fingerprint()):
                raise OtherRules(
                    f"{source.name.lower()}: the state was built with {position.fingerprint}, not with "
                    f"{config.fingerprint()}: let the windows close first, or use another group id"
                )
        self.config = config
        self._max_items = config.max_items
        self.stats = JoinStats()
        self.inputs = tuple(
            InputClock(s, config.bound_us, at[s].low_offset, at[s].clock_us, at[s].floor_us) for s in SOURCES
        )
        self.replay_from = {source: at[source].low_offset for source in SOURCES}
        self.replay_until = {source: at[source].offset for source in SOURCES}
        self.replaying = held
        self._matching = self._new_matching(max(p.evicted_us for p in at.values()))
        self._passed: deque[str] = deque(at[Source.IMPRESSIONS].passed, maxlen=MAX_PASSED)
        self._barriers: dict[str, list[Mark | None]] = {}
        self._watermark_us = NEVER_US
        self._floor_us = NEVER_US
        # An input that was above this holds nothing up: that it moves on settles nothing.
        self._settled_us = NEVER_US
        self._settle_clocks()

    @classmethod
    def restore(cls, config: JoinConfig, positions: Mapping[Source, Position]) -> JoinTask:
        """A task at committed positions. Feed it ``replay_from`` .. ``replay_until`` of each input, then
        ``end_replay``.

        OtherRules when the positions were committed under another configuration and state is still held."""
        return cls(config, positions)

    def _new_matching(self, evicted_us: int) -> Matching:
        return Matching(self.config, evicted_us)

    # -- what a host asks --------------------------------------------------------------------------------

    @property
    def watermark_us(self) -> int:
        """Event time below which the task is complete (NEVER_US before every input has spoken)."""
        return self._watermark_us

    @property
    def held_events(self) -> int:
        """Snapshots, impressions and actions in memory."""
        return self._matching.held_events

    @property
    def held_bytes(self) -> int:
        """Payload bytes in memory."""
        return self._matching.held_bytes

    @property
    def open_impressions(self) -> int:
        """Impressions whose window is open."""
        return self._matching.open_impressions

    @property
    def pending_actions(self) -> int:
        """Actions that wait for their impression."""
        return self._matching.pending_actions

    @property
    def not_shown(self) -> int:
        """Snapshots released without an impression: served, never shown. Normal."""
        return self._matching.not_shown - self.stats.not_shown_replayed

    def positions(self) -> dict[Source, Position]:
        """What to commit with everything said so far."""
        if self.replaying:
            raise Conflict("a replay has no position of its own")
        passed, fingerprint = tuple(self._passed), self.config.fingerprint()
        evicted_us = self._matching.evicted_us
        return {clock.source: clock.position(evicted_us, passed, fingerprint) for clock in self.inputs}

    def low_water(self) -> dict[Source, tuple[int, int]]:
        """Per input: the oldest offset that the state needs, and the event clock before it."""
        return {clock.source: clock.low_water()[:2] for clock in self.inputs}

    def end_replay(self) -> None:
        """The records below the committed offsets are in: from here on the task speaks."""
        for clock in self.inputs:
            clock.next_offset = max(clock.next_offset, self.replay_until[clock.source])
        self.replaying = False
        self._matching.out.clear()
        self.stats = JoinStats(not_shown_replayed=self._matching.not_shown)

    # -- feeding -----------------------------------------------------------------------------------------

    def feed(self, source: Source, offset: int, raw: bytes) -> list[Output]:
        """One record. Conflict when its offset does not grow, or reaches into what is not to be replayed."""
        clock = self.inputs[source]
        if offset < clock.next_offset or (self.replaying and offset >= self.replay_until[source]):
            raise Conflict(
                f"{source.name.lower()}: offset {offset} is out of order (next is {clock.next_offset})"
            )
        clock.next_offset = offset + 1
        matching = self._matching
        event = scan(source, raw, self._max_items)
        if event is not None:
            name, occurred_us = NAMES[source], event.occurred_us
        else:
            try:
                name, occurred_us, message = decode(source, raw, self._max_items)
            except Malformed as error:
                self.stats.records["malformed"] += 1
                matching.out.append(
                    Rejected(
                        Reason.MALFORMED, source, offset, raw, items=error.items, detail=str(error)[:500]
                    )
                )
                return self._said()
            if name == NAMES[source]:
                event = of_message(source, message, occurred_us)
        self.stats.records[name] += 1
        if event is not None:
            self._event(clock, offset, event, raw)
        elif name == "barrier":
            self._barrier(clock, offset, message.barrier_id, occurred_us)
            return self._said()
        if occurred_us > clock.clock_us:
            before_us = clock.watermark_us
            clock.observe(occurred_us)
            if before_us <= self._settled_us:
                self._settle_clocks()
        return self._said()

    def _event(self, clock: InputClock, offset: int, event: Event, raw: bytes) -> None:
        source, matching, occurred_us = clock.source, self._matching, event.occurred_us
        event_id, request_id = event.event_id, event.request_id
        before = self._before(event)
        if before is not None and self._is_repeat(clock, occurred_us, event_id, before):
            self.stats.repeats[source.name.lower()] += 1
            return
        items = len(event.item_ids) // 8 if isinstance(event, Listed) else 0
        if occurred_us < clock.watermark_us:
            behind_us = clock.watermark_us - occurred_us
            matching.out.append(
                Rejected(Reason.LATE, source, offset, raw, request_id, items, behind_us=behind_us)
            )
            return
        held: Held
        if isinstance(event, Done):
            held = Acted(clock, offset, event, raw)
        elif before is not None and (first := self._remembered_first(clock, before)) is not None:
            # It stays until its replay can no longer need to refuse this one again.
            first.hold_us = max(first.hold_us, occurred_us + self.config.memory_us)
            first.seconds = [*(first.seconds or ()), (event_id, occurred_us)]
            second = Reason.SECOND_IMPRESSION if items else Reason.SECOND_SNAPSHOT
            matching.out.append(Rejected(second, source, offset, raw, request_id, items))
            return
        elif isinstance(event, Listed):
            held = Shown(clock, offset, event, raw)
        else:
            assert isinstance(event, Scored)
            held = Snap(clock, offset, event, len(raw))
        if matching.evicted_us > NEVER_US and rules.last_needed_by(self.config, held) < matching.evicted_us:
            matching.out.append(Rejected(Reason.EVICTED, source, offset, raw, request_id, items))
            return
        clock.held.append(held)
        if isinstance(held, Acted):
            matching.add_action(held)
        elif isinstance(held, Shown):
            matching.add_impression(held)
        elif isinstance(held, Snap):
            matching.add_snapshot(held)

    def _before(self, event: Event) -> Held | None:
        """The last one of its request; of an action the one of its id and time."""
        matching = self._matching
        if isinstance(event, Done):
            return matching.acts.get((event.event_id, event.occurred_us))
        if isinstance(event, Listed):
            return matching.shown.get(event.request_id)
        return matching.snaps.get(event.request_id)

    def _is_repeat(self, clock: InputClock, occurred_us: int, event_id: str, newest: Held) -> bool:
        held: Held | None = newest
        while held is not None:
            if held.occurred_us == occurred_us and held.event_id == event_id:
                return rules.remembered(self.config, held, clock)
            if held.seconds is not None and (event_id, occurred_us) in held.seconds:
                return clock.watermark_us <= occurred_us + self.config.memory_us
            held = held.older
        return False

    def _remembered_first(self, clock: InputClock, newest: Held) -> Held | None:
        held: Held | None = newest
        while held is not None:
            if rules.remembered(self.config, held, clock):
                return held
            held = held.older
        return None

    # -- time --------------------------------------------------------------------------------------------

    def _barrier(self, clock: InputClock, offset: int, barrier_id: str, occurred_us: int) -> None:
        marks = self._barriers.get(barrier_id)
        repeated = barrier_id in self._passed or (marks is not None and marks[clock.source] is not None)
        mark = Mark(clock, offset, occurred_us, barrier_id)
        clock.raise_floor(occurred_us)
        self._settle_clocks()
        if repeated:
            self.stats.barriers_repeated += 1
            return
        clock.held.append(mark)
        if marks is None:
            marks = self._barriers[barrier_id] = [None, None, None]
        marks[clock.source] = mark
        seen = [m for m in marks if m is not None]
        if len(seen) == len(self.sources):
            self._forget_barrier(barrier_id)
            self._passed.append(barrier_id)
            self.stats.barriers_passed += 1
            self._matching.out.append(BarrierPassed(barrier_id, min(m.occurred_us for m in seen)))
        elif len(self._barriers) > MAX_PENDING_BARRIERS:
            self._forget_barrier(next(iter(self._barriers)))
            self.stats.barriers_dropped += 1

    def _forget_barrier(self, barrier_id: str) -> None:
        for mark in self._barriers.pop(barrier_id):
            if mark is not None:
                mark.released = True

    def _settle_clocks(self) -> None:
        a, b, c = self.inputs
        floor_us = min(a.floor_us, b.floor_us, c.floor_us)
        watermark_us = min(a.watermark_us, b.watermark_us, c.watermark_us)
        if floor_us > self._floor_us:
            self._floor_us = floor_us
            self._matching.pass_floor(floor_us)
        if watermark_us > self._watermark_us:
            self._watermark_us = self._settled_us = watermark_us
            self._matching.advance(watermark_us)

    def _said(self) -> list[Output]:
        matching = self._matching
        while matching.held_events > self.config.max_held_events and not self.replaying:
            self.stats.evicted_events += matching.evict([clock.held for clock in self.inputs])
        out = matching.out
        if not out:
            return []
        if self.replaying:
            out.clear()
            return []
        matching.out = []
        for output in out:
            if isinstance(output, Sample):
                self.stats.items[_outcome(output)] += output.rows
            elif isinstance(output, Rejected):
                self.stats.reasons[output.reason] += 1
                if output.items:
                    self.stats.items[output.reason] += output.items
        return out


def _outcome(sample: Sample) -> str:
    if sample.correction:
        return "correction"
    return "positive" if sample.positive else "negative"
