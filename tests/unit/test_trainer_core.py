"""The trainer without I/O: base + deltas = its state at every sequence, whatever fails, restarts or
explodes."""

from __future__ import annotations

import numpy as np
import pytest

from services.contract import delta, model_schema, model_state
from services.contract.model_state import ModelState
from tests.trainer_kit import START_US, World, barrier_bytes, new_core, new_state
from trainer.barriers import closed
from trainer.core import Plan, TrainerCore
from trainer.rows import initial_rows
from trainer.samples import RawRecord
from trainer.settings import AdmissionSettings, LearningSettings


def _follow(follower: ModelState, plan: Plan) -> None:
    sealed = delta.unseal(plan.value)
    model_state.apply(follower, sealed.header, delta.open_body(sealed), sealed.hash)


def _published(core: TrainerCore, follower: ModelState, now_us: int = START_US) -> Plan:
    plan = core.build(now_us, with_base=True)
    assert plan is not None and plan.base is not None
    _follow(follower, plan)
    core.ack()
    assert model_state.digest(plan.base) == model_state.digest(follower)
    return plan


def test_base_and_deltas_are_the_state_at_every_sequence() -> None:
    admission = AdmissionSettings(min_count_item=3, ttl_s=40, pending_ttl_s=20)
    world, core, follower = World(users=30, items=200), new_core(admission=admission), new_state()
    offset, tombstones = 0, 0
    for turn in range(25):
        core.train(world.records(7, first_offset=offset, rows=6), START_US + turn)
        offset += 7
        if turn % 3 == 1:
            # Learning goes on while a delta is in flight, and this one never arrives.
            assert core.build(START_US) is not None
            core.train(world.records(3, first_offset=offset), START_US)
            offset += 3
            core.fail()
        plan = _published(core, follower)
        body = delta.open_body(delta.unseal(plan.value))
        tombstones += sum(len(table.expired_ids) for table in body.tables)
    assert follower.sequence == 25 and follower.chain_hash == core.state.chain_hash
    assert tombstones > 0, "the test has to see ids expire"
    assert len(follower.tables["item"].pending) > 0
    assert follower.sample_offsets == {0: offset}


def test_what_is_learned_in_flight_goes_out_with_the_next_delta() -> None:
    world, core, follower = World(), new_core(), new_state()
    core.train(world.records(5), START_US)
    plan = core.build(START_US)
    assert plan is not None
    core.train(world.records(5, first_offset=5), START_US + 1)
    _follow(follower, plan)
    core.ack()
    assert (follower.samples_trained, core.state.samples_trained) == (50, 100)
    _published(core, follower)
    assert model_state.digest(follower) == model_state.digest(core.state)


def test_a_restart_goes_on_where_the_chain_ends_and_trains_nothing_twice() -> None:
    world, follower = World(), new_state()
    core = new_core()
    records = world.records(30)
    core.train(records[:10], START_US)
    _published(core, follower)
    core.train(records[10:20], START_US)  # dies before it is published
    successor = new_core(follower.copy(), epoch=follower.epoch + 1)
    assert successor.offsets == {0: 10}
    successor.train(records[5:], START_US)
    plan = _published(successor, follower)
    assert plan.header.sequence == 2 and plan.header.epoch == 2
    assert follower.samples_trained == 300
    assert successor.counts["records_repeated"] == 5
    straight, other = new_core(), new_state()
    straight.train(records[:10], START_US)
    _published(straight, other)
    straight.train(records[10:], START_US)
    _published(straight, other)
    assert model_state.digest(other) == model_state.digest(follower)


def test_without_news_there_is_no_delta() -> None:
    core = new_core()
    assert core.build(START_US) is None
    core.train([RawRecord(0, 0, barrier_bytes("b"))], START_US)
    plan = core.build(START_US)
    assert plan is not None and plan.header.barrier_ids == ("b",)
    core.ack()
    assert core.build(START_US) is None


def test_a_barrier_waits_for_every_partition_and_survives_a_restart() -> None:
    follower, core = new_state(), new_core(partitions=2)
    core.train([*World().records(1), RawRecord(0, 1, barrier_bytes("b"))], START_US)
    assert _published(core, follower).header.barrier_ids == ()
    assert follower.open_barriers == {"b": frozenset({0})}
    successor = new_core(follower.copy(), epoch=2, partitions=2)
    successor.train([RawRecord(1, 0, barrier_bytes("b"))], START_US)
    assert _published(successor, follower).header.barrier_ids == ("b",)
    assert follower.open_barriers == {}


def test_samples_are_closed_when_every_partition_ends_with_a_barrier() -> None:
    world = World(seed=1)
    barrier = [RawRecord(partition, 7, barrier_bytes("b")) for partition in (0, 1)]
    early, late = (world.records(1, partition=0, first_offset=offset)[0] for offset in (6, 8))
    both = frozenset((0, 1))
    assert closed([early, *barrier], both) and closed(barrier, both)
    assert not closed([early, barrier[0]], both)
    # Of what comes behind it nothing is known yet.
    assert not closed([*barrier, late], both)
    assert not closed([RawRecord(0, 1, b"\xff\xff"), barrier[1]], both)
    assert not closed([], both)


def test_a_barrier_of_a_failed_delta_is_named_by_the_next() -> None:
    core, follower = new_core(), new_state()
    core.train([RawRecord(0, 0, barrier_bytes("b"))], START_US)
    core.build(START_US)
    core.fail()
    assert _published(core, follower).header.barrier_ids == ("b",)


def test_rejected_records_leave_with_the_delta_and_once() -> None:
    core, follower = new_core(), new_state()
    core.train([RawRecord(0, 0, b"\xff\xff", b"key")], START_US)
    core.build(START_US)
    core.fail()
    plan = _published(core, follower)
    assert [(bad.reason, bad.record.value, bad.record.key) for bad in plan.rejected] == [
        ("undecodable", b"\xff\xff", b"key")
    ]
    assert follower.sample_offsets == {0: 1}
    assert core.build(START_US) is None


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_an_exploding_step_never_leaves_the_trainer(poison: float) -> None:
    world, core, follower = World(), new_core(), new_state()
    core.train(world.records(5), START_US)
    _published(core, follower)
    before = model_state.digest(core.state)
    core.state.dense["output.weight"][...] *= np.float32(poison)
    poisoned = model_state.digest(core.state)
    records = world.records(5, first_offset=5)
    assert core.train(records, START_US) == 0
    state = core.state.copy()
    state.sample_offsets = dict(follower.sample_offsets)
    assert model_state.digest(state) == poisoned != before, "a bad step changed something"
    assert sum(count for name, count in core.counts.items() if name.startswith("steps_skipped")) == 1
    assert core.touched.rows == 0
    reasons = {name for name in core.counts if name.startswith("rejected_step")}
    assert len(reasons) == 1


def test_a_step_that_would_throw_a_value_out_of_bounds_is_skipped_whole() -> None:
    learning = LearningSettings(minibatch_rows=64, bias_rate=1e6)
    core = new_core(learning=learning)
    before = model_state.digest(core.state)
    core.train(World().records(3), START_US)
    assert core.counts["steps_skipped_update"] == 1
    assert core.state.samples_trained == 0 and core.state.rows == 0
    assert model_state.digest(core.state) == before
    plan = core.build(START_US)
    assert plan is not None
    assert {bad.reason for bad in plan.rejected} == {"step_update"}
    assert len(plan.rejected) == 3


def test_an_id_is_admitted_when_it_was_seen_often_enough() -> None:
    world = World()
    core = new_core(admission=AdmissionSettings(min_count_item=2))
    record = world.records(1, rows=4)[0]
    core.train([record], START_US)
    assert len(core.state.tables["item"]) == 0
    assert len(core.state.tables["item"].pending) == 4
    assert len(core.state.tables["user"]) == 1
    core.train([RawRecord(0, 1, record.value)], START_US)
    assert len(core.state.tables["item"]) == 4
    assert len(core.state.tables["item"].pending) == 0


def test_full_tables_admit_nobody_and_count_it() -> None:
    core = new_core(admission=AdmissionSettings(min_count_item=1, max_rows=3, max_pending=2))
    core.train(World(users=1).records(1, rows=10), START_US)
    assert len(core.state.tables["item"]) == 3
    assert len(core.state.tables["item"].pending) == 2
    assert core.counts["ids_refused"] > 0


def test_new_ids_start_alike_in_whatever_order_they_come() -> None:
    ids = np.array([5, 2**63, 9], np.uint64)
    one = initial_rows(ids, "item", 0.05)
    other = initial_rows(ids[::-1].copy(), "item", 0.05)
    assert np.array_equal(one, other[::-1])
    assert not np.array_equal(one, initial_rows(ids, "user", 0.05))
    assert np.abs(one).max() <= 0.05 and one[:, model_schema.FM.slice].std() > 0.02
    assert not one[:, model_schema.BIAS.slice].any() and not one[:, model_schema.RECALL_BIAS.slice].any()


def test_position_shares_are_the_running_mean_of_what_was_trained() -> None:
    core = new_core()
    core.train(World().records(8, rows=4), START_US)
    share = core.state.dense["position_share"]
    assert share[:4] == pytest.approx([0.25] * 4)
    assert share.sum() == pytest.approx(1)
    core.train(World(seed=2).records(8, first_offset=8, rows=2), START_US)
    assert share[0] == pytest.approx((8 + 8) / 48)


def test_the_same_records_give_the_same_state() -> None:
    digests = set()
    for _ in range(2):
        core = new_core()
        core.train(World(seed=4).records(40), START_US)
        digests.add(model_state.digest(core.state))
    assert len(digests) == 1
