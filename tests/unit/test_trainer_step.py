"""What a step computes by hand or compiled is what the plain way gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from services.contract import model_schema
from services.contract.model_schema import RANK_WIDTH, RECALL_FACTORS, ROW_WIDTH
from tests.feature_kit import SHAPE
from tests.trainer_kit import World, new_state
from trainer import adagrad, step
from trainer.ranks import ALONE
from trainer.samples import Batch, decode
from trainer.settings import AdmissionSettings, LearningSettings

Floats = NDArray[np.float32]
RATES = np.array([0.1, 0.2, 0.2], np.float32)


def plainly(rows: Floats, accumulators: Floats, gradients: Floats, decay: float, clip: float) -> None:
    """Row-wise Adagrad by numpy."""
    moved = (gradients != 0).any(axis=1)
    grad = gradients + decay * rows * moved[:, None]
    norm = np.sqrt((grad * grad).sum(axis=1))
    grad = grad * np.minimum(1, clip / np.maximum(norm, 1e-12))[:, None]
    accumulators += (grad * grad).mean(axis=1)
    rows -= RATES * grad / np.sqrt(0.1 + accumulators)[:, None]


@pytest.mark.parametrize("decay", [0.0, 0.02])
@pytest.mark.parametrize("clip", [0.5, 10.0])
def test_rows_learn_as_by_numpy(decay: float, clip: float) -> None:
    rng = np.random.default_rng(3)
    # Columns of wider rows, as in a step.
    wide, held = rng.normal(0, 1, (40, 5)).astype(np.float32), rng.random((40, 2)).astype(np.float32)
    gradients = rng.normal(0, 1, (40, 5)).astype(np.float32)
    gradients[7] = 0
    gradients[8] = [0, 0, 0, 5, 5]
    rows, accumulators = wide[:, :3].copy(), held[:, 1].copy()
    before = wide.copy()
    for _ in range(3):
        plainly(rows, accumulators, gradients[:, :3], decay, clip)
        used = gradients.copy()
        adagrad.learn(wide[:, :3], held[:, 1], used[:, :3], RATES, decay=decay, clip=clip, start=0.1)
    np.testing.assert_allclose(wide[:, :3], rows, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(held[:, 1], accumulators, rtol=1e-5)
    np.testing.assert_array_equal(wide[:, 3:], before[:, 3:])
    np.testing.assert_array_equal(wide[7:9], before[7:9])


@pytest.fixture
def batch() -> Batch:
    world = World(users=12, items=25)
    found = decode(world.records(30), SHAPE)
    assert found.batch is not None and not found.bad
    return found.batch


def test_a_step_works_on_each_id_once_and_knows_the_place_count_and_last_time_of_all(batch: Batch) -> None:
    work = step.take(new_state(), batch, LearningSettings(), AdmissionSettings())
    for name, ids in (("user", batch.user_ids), ("item", batch.item_ids)):
        taken = work[name]
        distinct, seen = np.unique(ids, return_counts=True)
        assert len(distinct) < len(ids), "some id is there again"
        np.testing.assert_array_equal(taken.ids[taken.inverse], ids)
        order = np.argsort(taken.ids)
        np.testing.assert_array_equal(taken.ids[order], distinct)
        np.testing.assert_array_equal(taken.counts[order], seen)
        last = [batch.occurred_us[ids == one].max() for one in distinct]
        np.testing.assert_array_equal(taken.last_seen_us[order], last)


def test_recalls_gradients_are_those_of_autograd(batch: Batch) -> None:
    state, learning = new_state(), LearningSettings()
    work = step.take(state, batch, learning, AdmissionSettings(min_count_item=12))
    assert 1 < work["item"].live.sum() < len(work["item"].ids), "not every item takes part"
    rng = np.random.default_rng(5)
    for taken in work.values():
        taken.rows[:, RANK_WIDTH:] = rng.normal(0, 0.5, taken.rows[:, RANK_WIDTH:].shape)
    positive = step._recall_positives(batch, work, 40, ALONE.share)
    assert len(set(work["user"].inverse[positive])) < len(positive), "some user clicked twice"
    found = {name: np.zeros((len(work[name].ids), ROW_WIDTH), np.float32) for name in work}
    step._recall_gradients(work, positive, 500, found)

    users, items = work["user"], work["item"]
    classes = np.flatnonzero(items.live)
    user_rows, item_rows = (torch.from_numpy(of.rows.copy()).requires_grad_() for of in (users, items))
    factors = slice(RANK_WIDTH, RANK_WIDTH + RECALL_FACTORS)
    query = user_rows[torch.from_numpy(users.inverse[positive])][:, factors]
    target = item_rows[torch.from_numpy(classes)]
    expected = torch.from_numpy(items.counts[classes] / 500).log()
    logits = query @ target[:, factors].T + target[:, factors.stop] - expected
    wanted = torch.from_numpy(np.searchsorted(classes, items.inverse[positive]))
    torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="sum").backward()
    np.testing.assert_allclose(found["user"], user_rows.grad, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["item"], item_rows.grad, rtol=1e-4, atol=1e-5)
    assert not found["category"].any()
    assert np.abs(found["item"][:, model_schema.RECALL_BIAS.slice]).max() > 0.1
