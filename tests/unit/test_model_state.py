"""The state: base + deltas, all or nothing, one digest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.contract import delta, model_schema, model_state
from services.contract.delta import BadDelta, Body, DenseChange, TableChange
from services.contract.errors import Conflict
from services.contract.model_state import ModelState
from services.contract.model_table import Pending, TableState
from tests.feature_kit import SHAPE
from tests.trainer_kit import header_after, new_state, random_body, random_change


def _apply(state: ModelState, body: Body, **changed: object) -> None:
    value, _ = delta.seal(header_after(state, **changed), body)
    sealed = delta.unseal(value)
    model_state.apply(state, sealed.header, delta.open_body(sealed), sealed.hash)


def test_the_digest_does_not_depend_on_the_order_in_which_rows_came() -> None:
    random = np.random.default_rng(0)
    change = random_change(random, "item", [1, 2, 3, 4])
    one, other = TableState(), TableState()
    one.apply(change)
    for place in (2, 0, 3, 1):
        cut = slice(place, place + 1)
        other.apply(
            replace(
                change, ids=change.ids[cut], rows=change.rows[cut], optimizer=change.optimizer[cut],
                counts=change.counts[cut], last_seen_us=change.last_seen_us[cut],
            )
        )  # fmt: skip
    states = (ModelState(SHAPE), ModelState(SHAPE))
    states[0].tables["item"], states[1].tables["item"] = one, other
    assert model_state.digest(states[0]) == model_state.digest(states[1])


@pytest.mark.parametrize("part", ["rows", "optimizer", "counts", "last_seen_us"])
def test_the_digest_sees_every_column(part: str) -> None:
    state = new_state()
    _apply(state, random_body(1))
    before = model_state.digest(state)
    getattr(state.tables["item"], part)[state.tables["item"].ids()[1][0]] += 1
    assert model_state.digest(state) != before


def test_the_digest_sees_dense_values_their_optimizer_pending_ids_and_the_place() -> None:
    def pend(state: ModelState) -> None:
        ids = np.array([5], np.uint64)
        state.tables["user"].pending.set(ids, np.array([1], np.uint32), np.array([2], np.int64))

    changes = [
        pend,
        lambda s: s.dense["bias"].__iadd__(1),
        lambda s: s.dense_optimizer["bias"].__iadd__(1),
        lambda s: setattr(s, "sequence", 9),
        lambda s: s.sample_offsets.update({0: 77}),
        lambda s: setattr(s, "samples_trained", 1),
        lambda s: setattr(s, "trained_until_us", 1),
        lambda s: s.open_barriers.update({"b": frozenset({1})}),
    ]
    seen = {model_state.digest(new_state())}
    for change in changes:
        state = new_state()
        change(state)
        seen.add(model_state.digest(state))
    assert len(seen) == len(changes) + 1


def test_a_delta_that_does_not_fit_changes_nothing() -> None:
    state = new_state()
    _apply(state, random_body(1))
    before = model_state.digest(state)
    good = random_body(2)
    bad = Body((*good.tables[:2], replace(good.tables[2], counts=np.zeros(1, np.uint32))), good.dense)
    with pytest.raises(BadDelta):
        model_state.apply(state, header_after(state), bad, b"h" * 32)
    for changed in ({"sequence": 5}, {"previous_hash": b"x" * 32}, {"generation": 2}):
        with pytest.raises(Conflict):
            model_state.apply(state, header_after(state, **changed), good, b"h" * 32)
    assert model_state.digest(state) == before
    assert state.sequence == 1


def test_a_delta_of_another_shape_changes_nothing() -> None:
    state = new_state()
    before = model_state.digest(state)
    wide = np.zeros((1, SHAPE.user_width + SHAPE.item_width), np.float32)
    good = random_body(2)
    dense = [tensor for tensor in good.dense if tensor.name != "linear.weight"]
    bad = Body(good.tables, (*dense, DenseChange("linear.weight", wide, wide)))
    with pytest.raises(BadDelta, match=r"linear\.weight") as caught:
        model_state.apply(state, header_after(state), bad, b"h" * 32)
    assert caught.value.reason == "bad_body"
    assert model_state.digest(state) == before


def test_an_expired_id_scores_like_one_that_never_was() -> None:
    table = TableState()
    table.apply(random_change(np.random.default_rng(0), "item", [1, 2]))
    table.apply(replace(TableChange("item"), expired_ids=np.array([1, 99], np.uint64)))
    assert table.slots(np.array([1, 99, 3], np.uint64)).tolist() == [0, 0, 0]
    assert not table.rows[0].any()
    assert len(table) == 1


def test_a_row_that_is_given_out_again_starts_from_its_new_values() -> None:
    table = TableState()
    table.apply(random_change(np.random.default_rng(0), "item", [1]))
    table.apply(replace(TableChange("item"), expired_ids=np.array([1], np.uint64)))
    slot = table.add(np.array([2], np.uint64))
    assert not table.rows[slot].any() and not table.optimizer[slot].any() and not table.counts[slot].any()


def test_a_copy_and_its_origin_go_their_own_ways() -> None:
    state = new_state()
    _apply(state, random_body(1))
    twin = state.copy()
    before = model_state.digest(twin)
    _apply(state, random_body(2))
    assert model_state.digest(twin) == before != model_state.digest(state)


def test_views_of_dense_tensors_see_the_next_delta() -> None:
    state = new_state()
    view = state.dense["hidden1.bias"]
    body = random_body(3)
    _apply(state, body)
    wanted = next(tensor.values for tensor in body.dense if tensor.name == "hidden1.bias")
    assert np.array_equal(view, wanted)


def test_a_light_table_keeps_only_its_columns() -> None:
    light = TableState(slice(model_schema.RECALL.start, model_schema.RECALL_BIAS.stop))
    change = random_change(np.random.default_rng(0), "item", list(range(100)))
    light.apply(change)
    slots = light.slots(change.ids)
    assert np.array_equal(light.rows[slots], change.rows[:, model_schema.RANK_WIDTH :])
    assert light.optimizer.size == 0


def test_a_pending_count_of_zero_forgets_the_id() -> None:
    pending = Pending()
    ids = np.array([1, 2], np.uint64)
    pending.set(ids, np.array([1, 1], np.uint32), np.array([5, 6], np.int64))
    pending.set(ids, np.array([0, 2], np.uint32), np.array([0, 7], np.int64))
    assert [column.tolist() for column in pending.items()] == [[2], [2], [7]]
    assert pending.get(ids)[0].tolist() == [0, 2]
