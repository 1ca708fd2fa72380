"""Taking a lineage back: what is published is the difference; with it followers have the state of then."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec.model.v1 import model_pb2
from services.contract import delta, model_state, times, topics
from services.contract.chain import Action, ModelSlot, Position
from services.contract.delta import Sealed
from services.contract.model_state import ModelState
from tests.trainer_kit import START_US, World, barrier_bytes, new_core, parameters, sample_bytes
from trainer.core import UnknownSchema
from trainer.orders import Orders, Quarantine
from trainer.rewind import Rewind
from trainer.samples import RawRecord
from trainer.settings import AdmissionSettings

SMALL = AdmissionSettings(min_count_item=2, ttl_s=60, pending_ttl_s=20)


class Chain:
    """A lineage that a real trainer core has published: its deltas, and its state at every sequence.
    ``clock``: when each was made, behind START_US; by default one after the other."""

    def __init__(self, seed: int, deltas: int, records: int = 4, clock: Sequence[int] = range(100)) -> None:
        world = World(seed=seed, users=12, items=25)
        core = new_core(admission=SMALL)
        self.base = core.state.copy()
        self.deltas: list[Sealed] = []
        self.states = [core.state.copy()]
        for n in range(deltas):
            core.train(world.records(records, first_offset=n * records, rows=4), now_us=START_US)
            plan = core.build(START_US + clock[n])
            assert plan is not None
            core.ack()
            self.deltas.append(delta.unseal(plan.value))
            self.states.append(core.state.copy())

    def rewound(self, order: model_pb2.Rollback) -> Rewind:
        rewind = Rewind(self.base.copy(), order)
        for sealed in self.deltas:
            rewind.take(sealed.header, delta.open_body(sealed), sealed.hash)
        return rewind


def to_sequence(sequence: int, order: int = 7) -> model_pb2.Rollback:
    return model_pb2.Rollback(order=order, to_sequence=sequence)


def follow(state: ModelState, values: list[bytes]) -> ModelState:
    """As ranking does: by the rules of the chain."""
    slot = ModelSlot(state.generation, state.policy, state.shape.model_hash)
    slot.base_loaded(Position(state.sequence, state.epoch, state.chain_hash, 0))
    for offset, value in enumerate(values):
        sealed = delta.unseal(value)
        assert slot.offer(sealed.header, sealed.hash, offset).action is Action.APPLY
        model_state.apply(state, sealed.header, delta.open_body(sealed), sealed.hash)
        slot.applied(sealed.header, sealed.hash, offset)
    return state


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1_000), back=st.integers(1, 6), max_ids=st.sampled_from([3, 40, 20_000]))
def test_behind_the_difference_every_follower_has_the_state_of_then(seed, back, max_ids):
    chain = Chain(seed, deltas=6)
    target = 6 - back
    rewind = chain.rewound(to_sequence(target))
    values = [plan.value for plan in rewind.plans(START_US + 99, max_ids)]
    served = follow(chain.states[-1].copy(), values)
    assert parameters(served) == parameters(chain.states[target])
    # The trainer holds what ranking holds, bit for bit, at the end of the chain.
    assert model_state.digest(served) == model_state.digest(rewind.state)
    assert rewind.state.chain_hash == served.chain_hash
    assert served.sample_offsets == chain.states[-1].sample_offsets
    last = delta.unseal(values[-1]).header
    assert last.rollback is not None
    assert (last.rollback.order, last.rollback.restored_sequence) == (7, target)
    assert [delta.unseal(value).header.rollback for value in values[:-1]] == [None] * (len(values) - 1)
    assert last.epoch == chain.states[-1].epoch + 1


def test_only_what_was_touched_since_travels():
    chain = Chain(3, deltas=6)
    (plan,) = chain.rewound(to_sequence(5)).plans(START_US, 20_000)
    body = delta.open_body(chain.deltas[5])
    changed = sum(len(change.ids) + len(change.expired_ids) for change in body.tables)
    sent = delta.open_body(delta.unseal(plan.value))
    assert sum(len(change.ids) + len(change.expired_ids) for change in sent.tables) <= changed
    assert plan.rows < chain.states[-1].rows


def test_the_samples_since_are_quarantined_and_no_others():
    chain = Chain(1, deltas=6, records=4)
    (plan,) = chain.rewound(to_sequence(2)).plans(START_US, 20_000)
    assert plan.header.rollback is not None
    assert plan.header.rollback.quarantined == ((0, 8, 24),)


def test_a_moment_means_the_newest_state_published_no_later():
    chain = Chain(1, deltas=6)
    for moment, sequence in ((START_US - 1, 0), (START_US, 1), (START_US + 3, 4), (START_US + 4, 5)):
        order = model_pb2.Rollback(order=7)
        times.set_us(order.to_time, moment)
        assert chain.rewound(order).state.sequence == sequence


def test_a_clock_that_went_back_restores_no_hole_in_the_chain():
    chain = Chain(1, deltas=4, clock=(0, 5, 1, 6))
    order = model_pb2.Rollback(order=7)
    times.set_us(order.to_time, START_US + 2)
    rewind = chain.rewound(order)
    assert (rewind.state.sequence, rewind.undone) == (1, 3)
    (plan,) = rewind.plans(START_US + 9, 20_000)
    assert parameters(follow(chain.states[-1].copy(), [plan.value])) == parameters(chain.states[1])


def test_of_a_clock_that_went_back_no_later_base_passes_for_an_earlier_state():
    chain = Chain(1, deltas=4, clock=(0, 5, 1, 6))
    # A base has the time of its state, and a base is where a rollback begins.
    assert [state.created_at_us - START_US for state in chain.states[1:]] == [0, 5, 5, 6]
    (plan,) = chain.rewound(to_sequence(1)).plans(START_US + 2, 20_000)
    assert plan.header.created_at_us == START_US + 6


def test_a_target_that_is_not_behind_undoes_nothing():
    rewind = Chain(1, deltas=3).rewound(to_sequence(3))
    assert rewind.undone == 0
    with pytest.raises(RuntimeError, match="nothing to undo"):
        next(rewind.plans(START_US, 100))


def test_an_order_that_was_carried_out_is_recognised_and_one_cut_off_is_not():
    chain = Chain(2, deltas=5)
    plans = list(chain.rewound(to_sequence(2)).plans(START_US, 10))
    assert len(plans) > 1
    chain.deltas += [delta.unseal(plan.value) for plan in plans[:-1]]
    again = chain.rewound(to_sequence(2))
    assert again.carried is None
    served = follow(chain.states[-1].copy(), [plan.value for plan in plans[:-1]])
    finished = follow(served, [plan.value for plan in again.plans(START_US, 20_000)])
    assert parameters(finished) == parameters(chain.states[2])
    chain.deltas += [delta.unseal(plans[-1].value)]
    done = chain.rewound(to_sequence(2))
    assert done.carried is not None and done.carried[0].sequence == 5 + len(plans)
    assert chain.rewound(to_sequence(2, order=8)).carried is None


def test_a_second_rollback_undoes_the_first():
    chain = Chain(4, deltas=5)
    (plan,) = chain.rewound(to_sequence(1)).plans(START_US, 20_000)
    chain.deltas.append(delta.unseal(plan.value))
    back = chain.rewound(to_sequence(5, order=9))
    (again,) = back.plans(START_US, 20_000)
    served = follow(chain.states[-1].copy(), [plan.value, again.value])
    assert parameters(served) == parameters(chain.states[5])


def test_no_lineage_trains_what_was_quarantined_and_its_barriers_still_pass():
    world = World(seed=1)
    records = world.records(6)
    records[3] = RawRecord(0, 3, barrier_bytes("b"))
    core = new_core()
    core._quarantine = Quarantine([(0, 2, 5)])
    core.train(records, now_us=START_US)
    assert core.counts["records_passed_over"] == 3
    assert core.state.samples_trained == 10 * 3
    assert core.offsets == {0: 6}
    assert core.barriers.complete == ("b",)


def test_an_order_stands_until_its_outcome_does_and_a_quarantine_stays():
    orders = Orders()
    lineage = model_pb2.Lineage(generation=2, policy="online")
    orders.take(
        model_pb2.Release(arm="generation/2", lineage=lineage, base=model_pb2.BaseRef(manifest_uri="u"))
    )
    first = orders.first_base((2, "online"))
    assert first is not None and first.manifest_uri == "u"
    orders.take(model_pb2.Release(lineage=lineage, rollback=to_sequence(3, order=5)))
    found = orders.outstanding((2, "online"))
    assert found is not None and found.order == 5
    assert orders.outstanding((1, "online")) is None
    done = to_sequence(3, order=5)
    done.done.order = 5
    done.done.quarantined.add(partition=1, start=4, end=6)
    orders.take(model_pb2.Release(lineage=lineage, rollback=done))
    assert orders.outstanding((2, "online")) is None
    assert [orders.quarantine.covers(1, offset) for offset in (3, 4, 5, 6)] == [False, True, True, False]
    assert not orders.quarantine.covers(0, 4)
    failed = to_sequence(9, order=6)
    orders.take(model_pb2.Release(lineage=lineage, rollback=failed))
    failed.error = "no base"
    orders.take(model_pb2.Release(lineage=lineage, rollback=failed))
    assert orders.outstanding((2, "online")) is None


def test_a_lineage_of_another_policy_is_rewound_in_its_own_partition_from_its_beginning():
    orders = Orders()
    base = model_pb2.BaseRef(manifest_uri="u", delta_partition=63, delta_offset=500)
    online = model_pb2.Lineage(generation=2, policy="online")
    orders.take(model_pb2.Release(arm="generation/2", lineage=online, base=base))
    assert orders.first_base((2, "online")) == base
    hourly = orders.first_base((2, "hourly"))
    assert hourly is not None and hourly.manifest_uri == "u"
    where = topics.partition_of(topics.lineage_key(2, "hourly"), topics.MODEL_DELTAS.partitions)
    assert (hourly.delta_partition, hourly.delta_offset) == (where, 0)
    assert orders.first_base((3, "hourly")) is None


def test_a_quarantined_record_of_a_set_that_is_not_known_stops_nobody():
    world = World(seed=1)
    foreign = world.sample()
    foreign.schema_hash = 5
    records = [RawRecord(0, 0, sample_bytes(foreign)), *world.records(2, first_offset=1)]
    core = new_core()
    with pytest.raises(UnknownSchema):
        core.train(records, now_us=START_US, refuse_unknown=False)
    assert not core.counts["records_passed_over"]
    core._quarantine = Quarantine([(0, 0, 1)])
    assert core.train(records, now_us=START_US, refuse_unknown=False) == 20
    assert core.counts["records_passed_over"] == 1


def test_a_new_state_is_rewound_to_its_generation():
    chain = Chain(5, deltas=3)
    rewind = chain.rewound(to_sequence(0))
    plans = list(rewind.plans(START_US, 20_000))
    served = follow(chain.states[-1].copy(), [plan.value for plan in plans])
    assert served.rows == 0
    assert parameters(served) == parameters(chain.base)
