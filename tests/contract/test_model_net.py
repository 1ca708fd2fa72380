"""Serving and training compute the same logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from services.contract import model_net, model_schema
from services.contract.model_state import ModelState
from tests.feature_kit import FEATURES, SHAPE
from tests.trainer_kit import new_state, random_change


@pytest.fixture
def state() -> ModelState:
    random = np.random.default_rng(0)
    made = new_state()
    for name, ids in (("user", range(20)), ("item", range(500)), ("category", range(10))):
        made.tables[name].apply(random_change(random, name, list(ids)))
    for values in made.dense.values():
        np.add(values, random.normal(0, 0.1, values.shape), out=values, casting="unsafe")
    return made


def _features(rows: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    user = random.normal(0, 2, FEATURES.user_width).astype(np.float32)
    item = random.normal(0, 2, (rows, FEATURES.item_width)).astype(np.float32)
    item[:, FEATURES.category_column] = random.integers(0, 14, rows)
    return user, item


def _training(
    state: ModelState, user_id: int, ids: np.ndarray, user: np.ndarray, item: np.ndarray
) -> np.ndarray:
    def rows(table: str, keys: np.ndarray) -> torch.Tensor:
        held = state.tables[table]
        return torch.from_numpy(held.rows[held.slots(keys)][:, : model_schema.RANK_WIDTH])

    dense = model_net.dense_tensors(state)
    inputs = model_net.dense_input(
        SHAPE, torch.from_numpy(np.tile(user, (len(ids), 1))), torch.from_numpy(item)
    )
    logits = model_net.training_logits(
        dense,
        rows("user", np.full(len(ids), user_id, np.uint64)),
        rows("item", ids),
        rows("category", model_net.category_ids(SHAPE, item)),
        inputs,
    )
    return torch.sigmoid(logits + model_net.serving_position(dense)).numpy()


@pytest.mark.parametrize("user_id", [3, 999])
def test_serving_scores_are_those_of_training(state: ModelState, user_id: int) -> None:
    ids = np.arange(0, 1_000, dtype=np.uint64)  # half of them unknown
    user, item = _features(len(ids))
    served = model_net.score(state, user_id, ids, user, item)
    assert np.abs(served - _training(state, user_id, ids, user, item)).max() < 1e-5
    assert served.dtype == np.float32 and served.std() > 0.01


def test_a_score_does_not_depend_on_the_other_candidates(state: ModelState) -> None:
    ids = np.arange(100, dtype=np.uint64)
    user, item = _features(100)
    together = model_net.score(state, 3, ids, user, item)
    alone = np.concatenate(
        [model_net.score(state, 3, ids[n : n + 1], user, item[n : n + 1]) for n in range(100)]
    )
    assert np.abs(together - alone).max() < 1e-5


def test_unknown_ids_score_by_their_features_alone(state: ModelState) -> None:
    user, item = _features(2)
    item[1] = item[0]
    one, other = model_net.score(state, 777, np.array([10_001, 10_002], np.uint64), user, item)
    assert one == pytest.approx(other, abs=1e-6)


def test_an_absurd_feature_cannot_move_a_score_without_bound(state: ModelState) -> None:
    user, item = _features(1)
    item[0, 5] = 1e30
    limited = item.copy()
    limited[0, 5] = model_net.FEATURE_LIMIT
    ids = np.array([1], np.uint64)
    assert model_net.score(state, 3, ids, user, item) == model_net.score(state, 3, ids, user, limited)


@pytest.mark.parametrize(("value", "category"), [(0, 0), (7, 7), (-1, 0), (1e30, 0), (np.nan, 0)])
def test_an_odd_category_is_unknown(value: float, category: int) -> None:
    item = np.zeros((1, FEATURES.item_width), np.float32)
    item[0, FEATURES.category_column] = value
    assert model_net.category_ids(SHAPE, item).tolist() == [category]


def test_the_next_delta_is_seen_through_kept_dense_tensors(state: ModelState) -> None:
    dense = model_net.dense_tensors(state)
    user, item = _features(5)
    ids = np.arange(5, dtype=np.uint64)
    before = model_net.score(state, 3, ids, user, item, dense)
    state.dense["bias"][...] += 1
    assert (model_net.score(state, 3, ids, user, item, dense) > before).all()
