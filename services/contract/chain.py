"""The rules of the chain: what a follower of a lineage does with each delta that it reads, as a pure state
machine.

    LOADING ----base_loaded----> LIVE <-----------applied----------- RESYNC_LOG
                                  |  '--gap, fork, bad bytes-------------^  |
                                  |                                         | same hole again, or log gone
                                  '--(pin reached)--> PINNED                v
                                 LIVE <----------base_loaded--------- RESYNC_BASE

A delta is judged in this order; the first that holds decides:

| reason | what it is | action |
|---|---|---|
| bad_hash, undecodable, bad_header, bad_body | bytes that are no valid delta | refused, log read again once |
| other_lineage | another chain in the same partition | ignored |
| other_model | shape of the model differs | refused |
| no_base | nothing to apply it to yet | ignored |
| pinned | the arm stays where it is | ignored |
| repeat | sequence and hash applied before | ignored |
| older_epoch | a writer that has been replaced (zombie) | refused, no resync |
| old | a sequence long applied, whose hash is forgotten | ignored |
| next | next sequence, right previous hash | applied, even while waiting for a base |
| waiting_base | the log has not helped | ignored |
| gap | a later sequence | resync |
| fork | another delta for an applied sequence, or the next of another chain | refused, resync |

Resync is first from the log: the host seeks to the offset after the last applied delta and drops what it had
polled. What was the matter then stands below ``reread_until``; seen again it is really in the log, and is
refused while reading goes on: behind a forgery the true delta follows. If instead a later delta does not
fit either, the hole is real, and only a newer base helps. Nothing is ever skipped, and a base older than
the state is never taken. Counting every reason is part of the rules: ``counts``.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from enum import StrEnum

from services.contract.delta import Header

REMEMBERED_HASHES = 1_000


class SlotState(StrEnum):
    """Where a slot stands; the values are those of ArmStatus.slot_state."""

    LOADING = "loading"
    LIVE = "live"
    RESYNC_LOG = "resync_log"
    RESYNC_BASE = "resync_base"
    PINNED = "pinned"


class Action(StrEnum):
    """What the host does with the record."""

    APPLY = "apply"
    IGNORE = "ignore"
    REFUSE = "refuse"
    # Refuse, drop what was polled, seek to ``seek_offset``.
    RESYNC_LOG = "resync_log"
    # Refuse, and load a newer base.
    RESYNC_BASE = "resync_base"


REFUSALS = frozenset(
    {"bad_hash", "undecodable", "bad_header", "bad_body", "other_model", "older_epoch", "gap", "fork"}
)


@dataclass(frozen=True)
class Verdict:
    """The decision on one record: ``reason`` is a name of the table above."""

    action: Action
    reason: str
    seek_offset: int | None = None


@dataclass(frozen=True)
class Position:
    """A place in a chain: the last delta in it (or the base), and the log offset at which the chain goes
    on."""

    sequence: int
    epoch: int
    chain_hash: bytes
    next_offset: int


class ModelSlot:
    """Follows one lineage. The host offers every record in log order, applies what it is told to and then
    says ``applied``.

    ``model_hash``: of the base, which says it when it is loaded. ``pinned_sequence``: stop there for good.
    """

    def __init__(
        self,
        generation: int,
        policy: str,
        model_hash: int = 0,
        *,
        pinned_sequence: int | None = None,
    ) -> None:
        self.lineage = (generation, policy)
        self.pinned_sequence = pinned_sequence
        self.model_hash = model_hash
        self.state = SlotState.LOADING
        self.position = Position(0, 0, b"", 0)
        # Of every verdict's reason; those in REFUSALS are refusals.
        self.counts: Counter[str] = Counter()
        self.resyncs: Counter[str] = Counter()
        self._hashes: OrderedDict[int, bytes] = OrderedDict()
        # The last offset that led to reading the log again, and whether a hole was seen again on the way
        # there.
        self._reread_until = -1
        self._hole = False

    @property
    def refused(self) -> dict[str, int]:
        """Refusals by reason."""
        return {reason: count for reason, count in self.counts.items() if reason in REFUSALS}

    def offer(self, header: Header, delta_hash: bytes, offset: int) -> Verdict:
        """Judges an unsealed delta. On APPLY nothing has moved yet: call ``applied`` or ``offer_bad``."""
        verdict = self._judge(header, delta_hash, offset)
        self.counts[verdict.reason] += 1
        return verdict

    def offer_bad(self, reason: str, offset: int) -> Verdict:
        """Judges bytes that are no valid delta (BadDelta.reason): maybe they arrive whole when read again."""
        self.counts[reason] += 1
        if self.state in (SlotState.LOADING, SlotState.PINNED, SlotState.RESYNC_BASE):
            return Verdict(Action.IGNORE, reason)
        if offset <= self._reread_until:
            # Read again, and still bad: it stands in the log like that. A hole behind it will show.
            return Verdict(Action.REFUSE, reason)
        return self._resync_log(reason, offset)

    def applied(self, header: Header, delta_hash: bytes, offset: int) -> None:
        """The host has applied the delta that stood at ``offset``."""
        self.position = Position(header.sequence, header.epoch, delta_hash, offset + 1)
        self._remember(header.sequence, delta_hash)
        self._hole = False
        self.state = self._settled()

    def caught_up(self) -> None:
        """The log was read to its end: a resync is over, or, with a hole still there, only a base helps."""
        if self.state is not SlotState.RESYNC_LOG:
            return
        if self._hole:
            self._resync_base("gap")
        else:
            self.state = SlotState.LIVE

    def log_truncated(self) -> Verdict:
        """The log no longer holds the offset to go on from."""
        return self._resync_base("gap")

    def wants_base(self, position: Position) -> bool:
        """Whether a base at this place would help: always when loading, else only when newer than the
        state."""
        if self.pinned_sequence is not None and position.sequence > self.pinned_sequence:
            return False
        if self.state is SlotState.LOADING:
            return True
        if self.state is not SlotState.RESYNC_BASE:
            return False
        here = self.position
        if position.sequence == here.sequence:
            return position.epoch > here.epoch and position.chain_hash != here.chain_hash
        return position.sequence > here.sequence and position.epoch >= here.epoch

    def base_loaded(self, position: Position) -> bool:
        """The host holds this base now and reads on at its ``next_offset``. False (nothing moved) when it
        is not wanted."""
        if not self.wants_base(position):
            self.counts["base_not_newer"] += 1
            return False
        self.position = position
        self._hashes.clear()
        self._remember(position.sequence, position.chain_hash)
        self._reread_until, self._hole = -1, False
        self.state = self._settled()
        return True

    def retry_log(self) -> Verdict | None:
        """While no newer base exists: read the log once more (it may have been a fault on the way). None in
        other states."""
        if self.state is not SlotState.RESYNC_BASE:
            return None
        self._hole = False
        return self._resync_log("retry", self._reread_until)

    def _judge(self, header: Header, delta_hash: bytes, offset: int) -> Verdict:
        early = self._not_ours(header) or self._not_new(header, delta_hash)
        if early is not None:
            return early
        here = self.position
        if header.sequence < here.sequence and header.sequence not in self._hashes:
            return Verdict(Action.IGNORE, "old")
        if header.sequence == here.sequence + 1 and header.previous_hash == here.chain_hash:
            return Verdict(Action.APPLY, "next")
        if self.state is SlotState.RESYNC_BASE:
            self._reread_until = max(self._reread_until, offset)
            return Verdict(Action.IGNORE, "waiting_base")
        reason = "gap" if header.sequence > here.sequence + 1 else "fork"
        return self._misfit(reason, offset, ahead=header.sequence > here.sequence)

    def _misfit(self, reason: str, offset: int, *, ahead: bool) -> Verdict:
        if offset <= self._reread_until:
            self._hole |= ahead
            return Verdict(Action.REFUSE, reason)
        if self.state is SlotState.RESYNC_LOG and self._hole:
            self._reread_until = offset
            return self._resync_base(reason)
        return self._resync_log(reason, offset)

    def _not_ours(self, header: Header) -> Verdict | None:
        if header.lineage != self.lineage:
            return Verdict(Action.IGNORE, "other_lineage")
        if header.model_hash != self.model_hash:
            return Verdict(Action.REFUSE, "other_model")
        if self.state is SlotState.LOADING:
            return Verdict(Action.IGNORE, "no_base")
        if self.state is SlotState.PINNED:
            return Verdict(Action.IGNORE, "pinned")
        return None

    def _not_new(self, header: Header, delta_hash: bytes) -> Verdict | None:
        if self._hashes.get(header.sequence) == delta_hash:
            return Verdict(Action.IGNORE, "repeat")
        if header.epoch < self.position.epoch:
            return Verdict(Action.REFUSE, "older_epoch")
        return None

    def _resync_log(self, reason: str, offset: int) -> Verdict:
        self._reread_until = max(self._reread_until, offset)
        self.state = SlotState.RESYNC_LOG
        self.resyncs["log"] += 1
        return Verdict(Action.RESYNC_LOG, reason, self.position.next_offset)

    def _resync_base(self, reason: str) -> Verdict:
        self.state = SlotState.RESYNC_BASE
        self.resyncs["base"] += 1
        return Verdict(Action.RESYNC_BASE, reason)

    def _settled(self) -> SlotState:
        if self.pinned_sequence is not None and self.position.sequence >= self.pinned_sequence:
            return SlotState.PINNED
        return SlotState.LIVE

    def _remember(self, sequence: int, delta_hash: bytes) -> None:
        self._hashes[sequence] = delta_hash
        while len(self._hashes) > REMEMBERED_HASHES:
            self._hashes.popitem(last=False)
