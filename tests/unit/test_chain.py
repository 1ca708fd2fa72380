"""The chain rules: a table of cases, and a machine of drops, repeats, reorders, forgeries and zombies."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.contract.chain import Action, ModelSlot, Position, SlotState
from services.contract.delta import Header
from tests.feature_kit import SHAPE

BASE = b"\x01" * 32


def _hash(header: Header, content: str) -> bytes:
    return hashlib.sha256(repr((header, content)).encode()).digest()


def _header(sequence: int, previous: bytes, **changed: object) -> Header:
    fields: dict[str, object] = {
        "generation": 1, "policy": "online", "sequence": sequence, "epoch": 1,
        "previous_hash": previous, "created_at_us": 0, "model_hash": SHAPE.model_hash,
    }  # fmt: skip
    return Header(**(fields | changed))  # type: ignore[arg-type]


def _chain(length: int, epoch: int = 1) -> list[tuple[Header, bytes]]:
    out, previous = [], BASE
    for sequence in range(1, length + 1):
        header = _header(sequence, previous, epoch=epoch)
        previous = _hash(header, "")
        out.append((header, previous))
    return out


def _live(applied: int, *, pinned: int | None = None) -> tuple[ModelSlot, list[tuple[Header, bytes]]]:
    """A slot that has applied some deltas, which stand at offsets 10, 11, ..."""
    slot = ModelSlot(1, "online", SHAPE.model_hash, pinned_sequence=pinned)
    slot.base_loaded(Position(0, 0, BASE, 10))
    chain = _chain(20)
    for n, (header, digest) in enumerate(chain[:applied]):
        assert slot.offer(header, digest, 10 + n).action is Action.APPLY
        slot.applied(header, digest, 10 + n)
    return slot, chain


OTHER_MODEL = SHAPE.model_hash ^ 1
CASES = {
    # name: (header of the offered delta made from the chain, hash or None, action, reason, state after)
    "next": (lambda c: c[5][0], lambda c: c[5][1], Action.APPLY, "next", SlotState.LIVE),
    "repeat": (lambda c: c[4][0], lambda c: c[4][1], Action.IGNORE, "repeat", SlotState.LIVE),
    "older repeat": (lambda c: c[1][0], lambda c: c[1][1], Action.IGNORE, "repeat", SlotState.LIVE),
    "gap": (lambda c: c[6][0], lambda c: c[6][1], Action.RESYNC_LOG, "gap", SlotState.RESYNC_LOG),
    "fork of an applied one": (
        lambda c: replace(c[4][0], samples_trained=9), lambda c: b"x" * 32,
        Action.RESYNC_LOG, "fork", SlotState.RESYNC_LOG,
    ),
    "next of another chain": (
        lambda c: replace(c[5][0], previous_hash=b"y" * 32), lambda c: b"x" * 32,
        Action.RESYNC_LOG, "fork", SlotState.RESYNC_LOG,
    ),
    "zombie": (
        lambda c: replace(c[5][0], epoch=0), lambda c: b"x" * 32,
        Action.REFUSE, "older_epoch", SlotState.LIVE,
    ),
    "other lineage": (
        lambda c: replace(c[5][0], generation=2), lambda c: b"x" * 32,
        Action.IGNORE, "other_lineage", SlotState.LIVE,
    ),
    "other policy": (
        lambda c: replace(c[5][0], policy="daily"), lambda c: b"x" * 32,
        Action.IGNORE, "other_lineage", SlotState.LIVE,
    ),
    "other model": (
        lambda c: replace(c[5][0], model_hash=OTHER_MODEL), lambda c: b"x" * 32,
        Action.REFUSE, "other_model", SlotState.LIVE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_delta_meets_its_rule(name: str) -> None:
    slot, chain = _live(5)
    header, digest, action, reason, state = CASES[name]
    verdict = slot.offer(header(chain), digest(chain), 15)
    assert (verdict.action, verdict.reason, slot.state) == (action, reason, state)
    assert slot.counts[reason] >= 1
    assert slot.position.sequence == 5
    if action is Action.RESYNC_LOG:
        assert verdict.seek_offset == 15


def test_before_a_base_nothing_is_applied() -> None:
    slot = ModelSlot(1, "online", SHAPE.model_hash)
    header, digest = _chain(1)[0]
    assert slot.offer(header, digest, 0).reason == "no_base"
    assert slot.state is SlotState.LOADING


def test_a_pinned_slot_stops_at_its_sequence_for_good() -> None:
    slot, chain = _live(3, pinned=3)
    assert slot.state is SlotState.PINNED
    assert slot.offer(*chain[3], 13).reason == "pinned"
    assert not slot.base_loaded(Position(9, 1, b"z" * 32, 30))


def test_a_base_beyond_the_pin_is_not_taken() -> None:
    slot = ModelSlot(1, "online", SHAPE.model_hash, pinned_sequence=3)
    assert not slot.base_loaded(Position(4, 1, b"z" * 32, 30))
    assert slot.state is SlotState.LOADING


def test_a_lost_delta_is_read_again_from_the_log() -> None:
    slot, chain = _live(5)
    assert slot.offer(*chain[6], 16).seek_offset == 15
    for n in (5, 6):
        assert slot.offer(*chain[n], 10 + n).action is Action.APPLY
        slot.applied(*chain[n], 10 + n)
    assert slot.state is SlotState.LIVE


def test_the_same_hole_in_the_log_leads_to_a_newer_base() -> None:
    slot, chain = _live(5)
    slot.offer(*chain[6], 16)
    assert slot.offer(*chain[6], 16).action is Action.REFUSE
    assert slot.offer(*chain[7], 17).action is Action.RESYNC_BASE
    assert slot.offer(*chain[8], 18).reason == "waiting_base"
    assert not slot.base_loaded(Position(4, 1, chain[3][1], 14))
    assert not slot.base_loaded(Position(5, 1, chain[4][1], 15))
    assert slot.position.sequence == 5
    assert slot.base_loaded(Position(8, 1, chain[7][1], 18))
    assert slot.offer(*chain[8], 18).action is Action.APPLY


def test_a_forgery_that_stands_in_the_log_does_not_stop_the_chain() -> None:
    slot, chain = _live(5)
    forged = replace(chain[5][0], previous_hash=b"f" * 32)
    assert slot.offer(forged, b"f" * 32, 15).action is Action.RESYNC_LOG
    assert slot.offer(forged, b"f" * 32, 15).action is Action.REFUSE
    assert slot.offer(*chain[5], 16).action is Action.APPLY


def test_bytes_broken_on_the_way_are_read_again_and_bytes_broken_in_the_log_are_passed() -> None:
    slot, chain = _live(5)
    assert slot.offer_bad("bad_hash", 15).seek_offset == 15
    assert slot.offer_bad("bad_hash", 15).action is Action.REFUSE
    assert slot.offer(*chain[5], 16).action is Action.APPLY
    assert slot.refused == {"bad_hash": 2}


def test_a_quiet_log_ends_a_resync_that_found_no_hole() -> None:
    slot, _ = _live(5)
    slot.offer_bad("bad_hash", 15)
    slot.offer_bad("bad_hash", 15)
    slot.caught_up()
    assert slot.state is SlotState.LIVE


def test_a_new_epoch_continues_the_chain_and_shuts_out_the_old() -> None:
    slot, chain = _live(5)
    header = _header(6, chain[4][1], epoch=2)
    digest = _hash(header, "")
    assert slot.offer(header, digest, 15).action is Action.APPLY
    slot.applied(header, digest, 15)
    zombie = _header(7, digest, epoch=1)
    assert slot.offer(zombie, _hash(zombie, ""), 16).reason == "older_epoch"
    assert slot.state is SlotState.LIVE


class ChainMachine(RuleBasedStateMachine):
    """A trainer writes a log that may hold garbage; a wire between log and follower loses, repeats and
    reorders."""

    @initialize()
    def start(self) -> None:
        # The truth: the hash of every sequence, by the trainer.
        self.truth = {0: BASE}
        # offset -> (header, hash) or None for bytes that are no delta.
        self.log: list[tuple[Header, bytes] | None] = []
        self.behind: dict[int, int] = {0: 0}
        self.epoch = 1
        self.slot = ModelSlot(1, "online", SHAPE.model_hash)
        self.slot.base_loaded(Position(0, 0, BASE, 0))
        self.read = 0
        self.zombies: set[int] = set()

    @property
    def newest(self) -> int:
        return max(self.truth)

    @rule(restart=st.booleans())
    def trainer_publishes(self, restart: bool) -> None:
        self.epoch += restart
        sequence = self.newest + 1
        header = _header(sequence, self.truth[self.newest], epoch=self.epoch)
        self.truth[sequence] = _hash(header, "true")
        self.log.append((header, self.truth[sequence]))
        self.behind[sequence] = len(self.log)

    @rule(ahead=st.integers(-2, 3))
    def forger_writes(self, ahead: int) -> None:
        header = _header(max(1, self.newest + ahead), b"f" * 32, epoch=self.epoch)
        self.log.append((header, _hash(header, f"forged {len(self.log)}")))

    @rule()
    def zombie_writes(self) -> None:
        header = _header(self.newest + 1, self.truth[self.newest], epoch=self.epoch)
        # Kafka fences it before its replacement writes; here it slips through, behind the new delta.
        self.trainer_publishes(restart=True)
        self.log.append((header, _hash(header, "zombie")))
        self.zombies.add(len(self.log) - 1)

    @rule()
    def garbage_is_written(self) -> None:
        self.log.append(None)

    @rule(count=st.integers(1, 4))
    def deliver(self, count: int) -> None:
        for _ in range(count):
            if self.read < len(self.log):
                self.read += 1
                self._offer(self.read - 1)

    @rule(count=st.integers(1, 3))
    def lose(self, count: int) -> None:
        self.read = min(len(self.log), self.read + count)

    @rule(data=st.data())
    def deliver_out_of_order(self, data: st.DataObject) -> None:
        if self.log:
            self._offer(data.draw(st.integers(0, len(self.log) - 1)))

    @rule(data=st.data())
    def corrupt_on_the_way(self, data: st.DataObject) -> None:
        if self.log:
            self._obey(self.slot.offer_bad("bad_hash", data.draw(st.integers(0, len(self.log) - 1))))

    @rule(data=st.data())
    def an_older_base_is_offered(self, data: st.DataObject) -> None:
        sequence = data.draw(st.integers(0, self.slot.position.sequence))
        assert not self.slot.base_loaded(self._base(sequence))

    @invariant()
    def only_the_truth_was_applied(self) -> None:
        here = self.slot.position
        assert self.truth[here.sequence] == here.chain_hash

    def teardown(self) -> None:
        """A few more true deltas without faults (and a base): the follower ends where the trainer is."""
        if not hasattr(self, "slot"):
            return
        for _ in range(4):
            self.trainer_publishes(restart=False)
            while self.read < len(self.log):
                self.read += 1
                self._offer(self.read - 1)
            self.slot.caught_up()
            if self.slot.state is SlotState.RESYNC_BASE:
                assert self.slot.base_loaded(self._base(self.newest))
                self.read = self.slot.position.next_offset
        assert self.slot.position.sequence == self.newest
        assert self.slot.position.chain_hash == self.truth[self.newest]

    def _base(self, sequence: int) -> Position:
        return Position(sequence, self.epoch, self.truth[sequence], self.behind[sequence])

    def _offer(self, offset: int) -> None:
        record = self.log[offset]
        if record is None:
            self._obey(self.slot.offer_bad("undecodable", offset))
            return
        if offset in self.zombies and self.slot.position.epoch <= record[0].epoch:
            # Nobody can tell a zombie by its delta before its replacement has been heard of.
            return
        verdict = self.slot.offer(*record, offset)
        if verdict.action is Action.APPLY:
            self.slot.applied(*record, offset)
        self._obey(verdict)

    def _obey(self, verdict: object) -> None:
        seek = getattr(verdict, "seek_offset", None)
        if seek is not None:
            self.read = seek


TestChainMachine = ChainMachine.TestCase
TestChainMachine.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)
