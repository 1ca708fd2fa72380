"""One training step on a batch of samples: predict, then learn, then write back; or nothing at all.

The loss is binary cross-entropy on ranking's columns and the dense tensors (its weights: trainer/loss.py),
plus a softmax over the step's items for recall's columns, with the sampling bias taken out (logQ): items
come into a batch as often as they are shown, and recall must not learn just that.

Rows learn with row-wise Adagrad (one accumulator per row and column group) from the sum of their gradients;
dense tensors with Adagrad from the sum as well. So the rows of a step may be dealt to several processes
(trainer/ranks.py): gradients are computed by shares, everything else by each of them from their sum.
Everything is computed aside. A step whose loss or result is not finite or out of bounds is skipped whole: its
records are quarantined, and no trace of it leaves the trainer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from services.contract import model_net, model_schema
from services.contract.model_state import ModelState
from trainer import adagrad
from trainer import rows as working
from trainer.loss import row_loss
from trainer.ranks import ALONE, Ranks, Share
from trainer.rows import WorkingRows
from trainer.samples import Batch
from trainer.settings import AdmissionSettings, LearningSettings

_RANK = slice(0, model_schema.RANK_WIDTH)
_RECALL = slice(model_schema.RANK_WIDTH, model_schema.ROW_WIDTH)
_RECALL_FACTORS, _RECALL_BIAS = model_schema.RECALL.slice, model_schema.RECALL_BIAS.slice
# A constant, not the rows of the step: with the mean gradient a handful of early clicks, which reach the
# trainer before their negatives, would move the tower as far as a full batch does.
DENSE_UNIT_ROWS = 256
_LEARNED = tuple(name for name in model_schema.DENSE if name != "position_share")


@dataclass(frozen=True)
class StepResult:
    """What one step did. ``predictions`` [n]: the candidate's own served probabilities before it learned, of
    the rank's share of the rows; ``loss``: mean of all rows; ``skipped``: why nothing was learned, else None;
    touched ids per table (rows, pending)."""

    predictions: NDArray[np.float32]
    loss: float
    skipped: str | None = None
    touched: dict[str, tuple[NDArray[np.uint64], NDArray[np.uint64]]] = field(default_factory=dict)
    refused: int = 0


@dataclass
class Gradients:
    """Of the loss [1], summed over rows: by table [distinct ids of the step, ROW_WIDTH], by dense tensor.
    Those of shares of a step add up to those of the step."""

    loss: NDArray[np.float32]
    rows: dict[str, NDArray[np.float32]]
    dense: dict[str, NDArray[np.float32]]

    @property
    def arrays(self) -> list[NDArray[np.float32]]:
        """All of them, in an order of their own."""
        return [self.loss, *self.rows.values(), *self.dense.values()]


def train_step(
    state: ModelState,
    batch: Batch,
    learning: LearningSettings,
    admission: AdmissionSettings,
    ranks: Ranks = ALONE,
) -> StepResult:
    """Learns from one batch; changes ``state`` all at once, or not at all when the step is bad. All ``ranks``
    call it with the same state and batch, and have the same state after it."""
    work = take(state, batch, learning, admission)
    predictions, gradients = gradients_of(state, batch, work, learning, ranks.share)
    ranks.sum(gradients.arrays)
    mean_loss = float(gradients.loss[0]) / len(batch)
    if not np.isfinite(mean_loss) or mean_loss > learning.max_loss:
        return StepResult(predictions, mean_loss, "loss")
    if not _finite(gradients):
        return StepResult(predictions, mean_loss, "gradient")
    for name, found in gradients.rows.items():
        _learn_rows(work[name], found, learning)
    dense = _learned_dense(state, gradients, learning)
    if _exploded(work, dense, learning.max_abs_value):
        return StepResult(predictions, mean_loss, "update")
    touched = {name: working.put(state.tables[name], work[name]) for name in work}
    for name, (values, accumulator) in dense.items():
        state.dense[name][...] = values
        state.dense_optimizer[name][...] = accumulator
    _count_positions(state, batch, learning.position_window_rows)
    state.samples_trained += len(batch)
    state.trained_until_us = max(state.trained_until_us, int(batch.occurred_us.max()))
    return StepResult(predictions, mean_loss, None, touched, sum(w.refused for w in work.values()))


def take(
    state: ModelState, batch: Batch, learning: LearningSettings, admission: AdmissionSettings
) -> dict[str, WorkingRows]:
    """The rows that a step works on, by table; changes nothing."""
    ids = {
        "user": batch.user_ids,
        "item": batch.item_ids,
        "category": model_net.category_ids(state.shape, batch.item_features),
    }
    return {
        name: working.take(
            name,
            state.tables[name],
            ids[name],
            batch.occurred_us,
            min_count=admission.min_count(name),
            max_rows=admission.max_rows,
            max_pending=admission.max_pending,
            init_scale=learning.init_scale,
        )
        for name in model_schema.TABLES
    }


def gradients_of(
    state: ModelState,
    batch: Batch,
    work: dict[str, WorkingRows],
    learning: LearningSettings,
    share: Share,
) -> tuple[NDArray[np.float32], Gradients]:
    """Predictions and gradients of a share of a step's rows; of recall's softmax, of a share of its
    positives against all items of the step."""
    part = share.of(len(batch))
    inverse = {name: torch.from_numpy(work[name].inverse[part]) for name in work}
    leaves = {name: torch.from_numpy(work[name].rows[:, _RANK].copy()).requires_grad_() for name in work}
    dense = {name: torch.from_numpy(state.dense[name]).requires_grad_() for name in _LEARNED}
    user, item, category = (leaves[name].index_select(0, inverse[name]) for name in model_schema.TABLES)
    rows = batch.rows(part.start, part.stop)
    inputs = model_net.dense_input(
        state.shape, torch.from_numpy(rows.user_features), torch.from_numpy(rows.item_features)
    )
    plain = model_net.training_logits(dense, user, item, category, inputs)
    positions = torch.from_numpy(np.minimum(rows.positions, model_schema.POSITIONS - 1))
    logits = plain + dense["position_bias"][positions]
    with torch.no_grad():
        served = dense | {"position_share": torch.from_numpy(state.dense["position_share"])}
        predictions = torch.sigmoid(plain + model_net.serving_position(served)).numpy()
        # Of the row where it was shown: a weight in the loss, not a path of the gradient.
        shown = torch.sigmoid(logits).numpy()
    of_rows = row_loss(rows.labels, rows.negatives, shown, learning)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        logits + of_rows.offset,
        torch.from_numpy(of_rows.target),
        weight=torch.from_numpy(of_rows.weight),
        reduction="sum",
    )
    names = [*leaves, *dense]
    found = torch.autograd.grad(loss, [*leaves.values(), *dense.values()])
    grads = {name: grad.numpy() for name, grad in zip(names, found, strict=True)}
    by_row = {name: np.zeros((len(work[name].ids), model_schema.ROW_WIDTH), np.float32) for name in work}
    for name in work:
        by_row[name][:, _RANK] = grads[name]
    positive = _recall_positives(batch, work, learning.recall_positives, share)
    _recall_gradients(work, positive, state.samples_trained + len(batch), by_row)
    for name, taken in work.items():
        by_row[name][~taken.live] = 0
    total = np.array([float(loss.detach())], np.float32)
    return predictions, Gradients(total, by_row, {name: grads[name] for name in dense})


def _recall_gradients(
    work: dict[str, WorkingRows],
    positive: NDArray[np.int64],
    seen: int,
    by_row: dict[str, NDArray[np.float32]],
) -> None:
    """Adds the gradients of recall's softmax: for each of these positives, its item against all live items of
    the step. ``seen``: samples that the counts of items are out of."""
    users, items = work["user"], work["item"]
    classes = np.flatnonzero(items.live)
    if not len(positive) or len(classes) < 2:
        return
    place = np.full(len(items.ids), -1)
    place[classes] = np.arange(len(classes))
    clickers = users.inverse[positive]
    query = torch.from_numpy(users.rows[clickers, _RECALL_FACTORS])
    held = items.rows[classes]
    target = torch.from_numpy(held[:, _RECALL_FACTORS])
    log_q = np.log(items.counts[classes] / max(1, seen)).astype(np.float32)
    bias = torch.from_numpy(held[:, _RECALL_BIAS.start] - log_q)
    # The gradient of cross-entropy by its logits: softmax, less 1 at what was clicked. By hand: autograd goes
    # over positives x items several times more.
    error = torch.softmax(torch.addmm(bias, query, target.T), dim=1)
    error.numpy()[np.arange(len(positive)), place[items.inverse[positive]]] -= 1
    of_user = torch.from_numpy(by_row["user"])[:, _RECALL_FACTORS]
    of_user.index_add_(0, torch.from_numpy(clickers), error @ target)
    by_row["item"][classes, _RECALL_FACTORS] += (error.T @ query).numpy()
    by_row["item"][classes, _RECALL_BIAS.start] += error.sum(0).numpy()


def _recall_positives(
    batch: Batch, work: dict[str, WorkingRows], most: int, share: Share
) -> NDArray[np.int64]:
    users, items = work["user"], work["item"]
    live = users.live[users.inverse] & items.live[items.inverse]
    positive = np.flatnonzero((batch.labels > 0) & live)[:most]
    return positive[share.of(len(positive))]


def _learn_rows(work: WorkingRows, gradient: NDArray[np.float32], learning: LearningSettings) -> None:
    """Row-wise Adagrad on the working copies; uses the gradient up."""
    rates = np.full(model_schema.ROW_WIDTH, learning.factor_rate, np.float32)
    rates[model_schema.BIAS.slice] = learning.bias_rate
    rates[_RECALL] = learning.recall_rate
    for group, part in enumerate((_RANK, _RECALL)):
        adagrad.learn(
            work.rows[:, part],
            work.optimizer[:, group],
            gradient[:, part],
            rates[part],
            decay=learning.row_decay,
            clip=learning.row_clip,
            start=learning.row_start,
        )


def _learned_dense(
    state: ModelState, gradients: Gradients, learning: LearningSettings
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Adagrad on the dense tensors from the summed gradient in units of DENSE_UNIT_ROWS, clipped."""
    norm = (
        float(np.sqrt(sum(float(np.vdot(grad, grad)) for grad in gradients.dense.values()))) / DENSE_UNIT_ROWS
    )
    scale = np.float32(min(1.0, learning.dense_clip / max(norm, 1e-12)) / DENSE_UNIT_ROWS)
    learned = {}
    for name, raw in gradients.dense.items():
        grad = raw * scale
        accumulator = state.dense_optimizer[name] + grad * grad
        root = np.sqrt(np.float32(learning.dense_start) + accumulator)
        step = np.float32(learning.dense_rate) * grad / root
        learned[name] = (state.dense[name] - step, accumulator)
    return learned


def _finite(gradients: Gradients) -> bool:
    return all(np.isfinite(grad).all() for grad in (*gradients.rows.values(), *gradients.dense.values()))


def _exploded(
    work: dict[str, WorkingRows],
    dense: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]],
    limit: float,
) -> bool:
    values = [*(w.rows for w in work.values()), *(values for values, _ in dense.values())]
    accumulators = [*(w.optimizer for w in work.values()), *(acc for _, acc in dense.values())]
    # Written so that a NaN counts as out of bounds.
    bounded = all(not v.size or float(np.abs(v).max()) <= limit for v in values)
    return not (bounded and all(np.isfinite(a).all() for a in accumulators))


def _count_positions(state: ModelState, batch: Batch, window: int) -> None:
    # A corrected row was counted when it was said first.
    places = np.minimum(batch.positions[~batch.corrections], model_schema.POSITIONS - 1)
    rows = len(places)
    if not rows:
        return
    seen = np.bincount(places, minlength=model_schema.POSITIONS)
    weight = rows / min(state.samples_trained + rows, max(window, rows))
    share = state.dense["position_share"]
    share += ((seen / rows - share) * weight).astype(np.float32)
