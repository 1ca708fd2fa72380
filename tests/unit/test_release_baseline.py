"""The arm that the guard compares with: always some minutes old, never on what was taken back; and where an
order of the guard goes back to."""

from __future__ import annotations

import pytest

from rec.model.v1 import model_pb2
from services.contract import times
from services.contract.times import MICROS
from services.contract.topics import delta_partition
from services.release import lives
from services.release.baseline import BaselineRules, kept
from services.release.decision import Decision
from services.release.evidence import Check
from services.release.gate import GateVerdict
from services.release.registry import KNOWN_BASES, Registry
from services.release.rollbacks import report_rollback, roll_back
from services.release.states import Step
from services.release.undone import Undone

AGE_S, LOOK_S = 300, 5
RULES = BaselineRules("baseline", 0.05, AGE_S * MICROS, LOOK_S * MICROS)
ONLINE = model_pb2.Lineage(generation=1, policy="online")
START_US = 1_700_000_000 * MICROS
SERVING, RETIRED = model_pb2.RELEASE_STATE_SERVING, model_pb2.RELEASE_STATE_RETIRED


class Rig:
    """A registry whose decisions are taken at once, and a clock in seconds since the first generation."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.now_s = 0.0
        # When each base of the first lineage was registered.
        self.registered_s = {0: 0.0}
        self.log: list[model_pb2.Release] = []
        self.take(self.registry.register_generation("g1", bytes(32), 0, 0, self.now_us))

    @property
    def now_us(self) -> int:
        return START_US + int(self.now_s * MICROS)

    def take(self, decision: Decision) -> Decision:
        self.log += decision.records
        self.registry.take(decision.records)
        return decision

    def base(self, sequence: int, lineage: model_pb2.Lineage = ONLINE) -> None:
        reference = model_pb2.BaseRef(
            manifest_uri=f"base-{lineage.generation}-{sequence}",
            manifest_digest=sequence.to_bytes(32, "big"),
            chain_hash=bytes(32),
            sequence=sequence,
            epoch=1,
            delta_partition=delta_partition(lineage.generation, lineage.policy),
            delta_offset=sequence,
        )
        self.take(self.registry.register_base(lineage, reference, self.now_us))
        if lineage == ONLINE:
            self.registered_s[sequence] = self.now_s

    def look(self, rules: BaselineRules = RULES) -> Decision:
        return self.take(kept(self.registry, rules, self.now_us).decision)

    def restart(self, *, compacted: bool) -> None:
        """Another process reads the log."""
        newest = {one.arm: one for one in self.log}
        kept_records = sorted(newest.values(), key=lambda one: one.revision) if compacted else self.log
        self.registry = Registry()
        self.registry.take(kept_records)

    def rolled_back(self, restored: int, sequence: int, *, target_s: float | None = None) -> None:
        wish = model_pb2.Rollback(reason="test")
        if target_s is None:
            wish.to_sequence = restored
        else:
            times.set_us(wish.to_time, START_US + int(target_s * MICROS))
        order = self.take(roll_back(self.registry, ONLINE, wish, self.now_us)).answer.rollback
        outcome = model_pb2.Rollback()
        outcome.CopyFrom(order)
        outcome.sequence, outcome.done.restored_sequence = sequence, restored
        times.set_us(outcome.published_at, self.now_us)
        self.take(report_rollback(self.registry, ONLINE, outcome, self.now_us))

    @property
    def arm(self) -> model_pb2.Release | None:
        return next((one for one in self.registry.arms if one.arm == "baseline"), None)

    @property
    def age_s(self) -> float:
        assert self.arm is not None and self.arm.base.sequence == self.arm.pinned_sequence
        return self.now_s - self.registered_s[self.arm.pinned_sequence]


@pytest.mark.parametrize("base_interval_s", [60, 100, 200, 295])
@pytest.mark.parametrize("restarts", [None, "whole", "compacted"])
def test_it_is_between_once_and_twice_the_age_old_and_moves_seldom(base_interval_s, restarts):
    rig, moves = Rig(), 0
    for second in range(1, 4_000, LOOK_S):
        rig.now_s = float(second)
        if second // base_interval_s > (second - LOOK_S) // base_interval_s:
            rig.base(second)
        if restarts == "whole" and second % 400 < LOOK_S:
            rig.restart(compacted=False)
        if restarts == "compacted" and second % 400 < LOOK_S:
            rig.restart(compacted=True)
        moves += bool(rig.look().records)
        if second < AGE_S:
            assert rig.arm is None
        else:
            assert AGE_S <= rig.age_s <= 2 * AGE_S
            assert (rig.arm.state, rig.arm.standing_share) == (SERVING, 0.05)
    # One load in what is left of the age when bases come seldom; more where the pin's own is known no more.
    if 3 * base_interval_s >= AGE_S:
        assert moves <= 1 + 4_000 / (AGE_S - base_interval_s + LOOK_S)


def test_it_stays_where_it_is_when_no_newer_base_comes():
    rig = Rig()
    rig.now_s = 301
    assert len(rig.look().records) == 1
    rig.now_s = 5_000
    assert rig.look().records == () and rig.arm.pinned_sequence == 0
    rig.base(7)
    rig.now_s = 5_299
    assert rig.look().records == ()
    rig.now_s = 5_300
    assert rig.look().records and rig.arm.pinned_sequence == 7


def test_a_base_that_is_older_than_twice_the_age_is_none_to_begin_with():
    rig = Rig()
    rig.now_s = 601
    assert rig.look().records == () and rig.arm is None


def test_what_a_rollback_has_taken_back_is_passed_over():
    rig = Rig()
    for number in range(1, 6):
        rig.now_s = 100.0 * number
        rig.base(number * 10)
        rig.look()
    assert rig.arm.pinned_sequence == 0
    rig.now_s = 550
    rig.rolled_back(restored=25, sequence=60)
    rig.now_s = 596
    rig.look()
    # 30, 40 and 50 are undone; 20 has the age.
    assert rig.arm.pinned_sequence == 20
    rig.base(70)
    rig.now_s = 890
    assert rig.look().records == ()
    rig.now_s = 900
    rig.look()
    assert rig.arm.pinned_sequence == 70


def test_a_baseline_that_was_taken_back_itself_leaves_its_users_until_there_is_another():
    rig = Rig()
    rig.now_s = 400
    rig.base(40)
    rig.now_s = 730
    rig.look()
    assert rig.arm.pinned_sequence == 40
    rig.rolled_back(restored=10, sequence=80)
    decision = rig.look()
    assert (rig.arm.state, rig.arm.standing_share) == (RETIRED, 0.0)
    assert "nothing to compare with" in decision.events[0].evidence_json
    assert rig.look().records == ()
    rig.base(90)
    rig.now_s = 1_029
    assert rig.look().records == ()
    rig.now_s = 1_030
    rig.look()
    assert (rig.arm.state, rig.arm.pinned_sequence, rig.arm.standing_share) == (SERVING, 90, 0.05)


def test_it_does_not_move_while_an_order_has_no_outcome():
    rig = Rig()
    rig.now_s = 400
    rig.base(40)
    rig.look()
    rig.now_s = 720
    wish = model_pb2.Rollback(reason="test", to_sequence=3)
    rig.take(roll_back(rig.registry, ONLINE, wish, rig.now_us))
    assert rig.look().records == () and rig.arm.pinned_sequence == 0


def test_it_follows_the_online_arm_to_the_next_generation_once_that_has_the_age():
    rig = Rig()
    rig.now_s = 350
    rig.look()
    rig.take(rig.registry.register_generation("g2", bytes([2]) * 32, 1, 0, rig.now_us))
    passed = GateVerdict((Check("rows", 2.0, low=1),))
    rig.take(lives.gated(rig.registry, 2, passed, rig.now_us))
    rig.take(lives.stepped(rig.registry, 2, Step.PROMOTED, rig.now_us))
    rig.now_s = 400
    rig.look()
    assert rig.arm.state == RETIRED
    rig.now_s = 650
    rig.look()
    assert (rig.arm.state, rig.arm.lineage.generation, rig.arm.pinned_sequence) == (SERVING, 2, 0)


def test_switched_off_it_is_retired_and_one_set_by_hand_is_left_alone():
    rig, off = Rig(), BaselineRules("baseline", 0.0, AGE_S * MICROS, LOOK_S * MICROS)
    rig.now_s = 350
    rig.look()
    assert rig.look(off).records and rig.arm.state == RETIRED
    rig.take(rig.registry.set_arm("baseline", ONLINE, 0, SERVING, rig.now_us))
    assert rig.look(off).records == () and rig.arm.state == SERVING


def test_a_new_share_is_told_without_a_move():
    rig = Rig()
    rig.now_s = 350
    rig.look()
    (record,) = rig.look(BaselineRules("baseline", 0.2, AGE_S * MICROS, LOOK_S * MICROS)).records
    assert (record.standing_share, record.pinned_sequence) == (0.2, 0)


def test_a_new_base_moves_followers_and_neither_the_pin_nor_the_share():
    rig = Rig()
    rig.now_s = 350
    rig.look()
    rig.base(40)
    assert (rig.arm.pinned_sequence, rig.arm.standing_share) == (0, 0.05)


def test_a_pin_goes_to_the_newest_known_base_that_it_allows():
    rig = Rig()
    for number in range(1, 10):
        rig.base(number * 10)
    found = rig.registry.bases(ONLINE)
    assert [one.base.sequence for one in found] == [0, *range(40, 100, 10)] and len(found) == KNOWN_BASES + 1
    assert rig.registry.set_arm("a", ONLINE, 75, SERVING, 3).answer.base.sequence == 70
    assert rig.registry.set_arm("a", ONLINE, 39, SERVING, 3).answer.base.sequence == 0


BACK_US = 180 * MICROS


def test_the_guard_goes_back_by_a_fixed_time():
    rig = Rig()
    rig.now_s = 1_000
    wish = Undone.of(rig.registry, ONLINE).target(rig.now_us, BACK_US)
    assert wish.to_time.ToMicroseconds() == rig.now_us - BACK_US


def test_an_order_never_restores_what_an_order_before_it_has_taken_back():
    rig = Rig()
    rig.now_s = 1_000
    rig.rolled_back(restored=80, sequence=100, target_s=820)
    rig.now_s = 1_100
    again = Undone.of(rig.registry, ONLINE).target(rig.now_us, BACK_US)
    # 920 is in between; what was restored then was not good enough.
    assert again.to_time.ToMicroseconds() == START_US + (820 - 180) * MICROS
    rig.rolled_back(restored=60, sequence=120, target_s=640)
    rig.now_s = 1_200
    deeper = Undone.of(rig.registry, ONLINE).target(rig.now_us, BACK_US)
    assert deeper.to_time.ToMicroseconds() == START_US + (640 - 180) * MICROS
    rig.now_s = 1_281
    late = Undone.of(rig.registry, ONLINE).target(rig.now_us, BACK_US)
    assert late.to_time.ToMicroseconds() == rig.now_us - BACK_US


def test_undone_is_what_stands_between_the_restored_state_and_its_return():
    rig = Rig()
    rig.now_s = 1_000
    rig.rolled_back(restored=80, sequence=100)
    undone = Undone.of(rig.registry, ONLINE)
    assert [one for one in range(70, 110) if undone.covers(one)] == list(range(81, 100))


def test_behind_an_order_by_sequence_the_guard_restores_that_sequence():
    rig = Rig()
    rig.now_s = 1_000
    rig.rolled_back(restored=80, sequence=100)
    rig.now_s = 1_100
    wish = Undone.of(rig.registry, ONLINE).target(rig.now_us, BACK_US)
    assert wish.to_sequence == 80 and not wish.HasField("to_time")
