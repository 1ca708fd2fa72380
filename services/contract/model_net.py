"""The model's arithmetic in torch, once for training and once for serving; they agree to rounding.

    logit = bias + linear(dense) + w_user + w_item + w_category
          + <f_u, f_i> + <f_u, f_c> + <f_i, f_c>              (factorisation machine)
          + tower([f_u, f_i, f_c, dense])                     (-> 256 -> 128 -> 1, ReLU)
          + position_bias[position]                           (training)
          + sum(position_share * position_bias)               (serving: an average position)

dense = the user's and the item's features without the category id, clamped to +-FEATURE_LIMIT: they come
log-scaled, and one absurd value must not move a logit without bound. A missing row is zeros.

Only ranking and the trainer import this file (it needs torch).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.contract import model_schema
from services.contract.model_schema import ModelShape
from services.contract.model_state import ModelState

FEATURE_LIMIT = 16.0
_F = model_schema.FACTORS
# Columns of hidden1.weight: user factors, item factors, category factors; then the features.
_U, _I, _C = slice(0, _F), slice(_F, 2 * _F), slice(2 * _F, 3 * _F)
Dense = Mapping[str, Tensor]


def dense_tensors(state: ModelState) -> dict[str, Tensor]:
    """The dense tensors of a state, sharing its memory: a delta applied later is seen."""
    return {name: torch.from_numpy(values) for name, values in state.dense.items()}


def category_ids(shape: ModelShape, item_features: NDArray[np.float32]) -> NDArray[np.uint64]:
    """The category id of each row [n, item_width]: an exact small integer; anything odd is 0, unknown."""
    column = item_features[:, shape.category_column]
    good = (column >= 0) & (column < 2**24)
    return np.where(good, column, 0).astype(np.uint64)


def dense_input(shape: ModelShape, user_features: Tensor, item_features: Tensor) -> Tensor:
    """[n, user_width + item_width - 1] from [n, user_width] and [n, item_width], clamped."""
    joined = torch.cat((user_features, item_features[:, shape.dense_columns]), dim=1)
    return joined.clamp(-FEATURE_LIMIT, FEATURE_LIMIT)


def training_logits(dense: Dense, user: Tensor, item: Tensor, category: Tensor, inputs: Tensor) -> Tensor:
    """Logits [n] without the position, from ranking's columns of the rows [n, RANK_WIDTH] and
    ``dense_input`` [n, ...]."""
    bias, fm = model_schema.BIAS.slice, model_schema.FM.slice
    u, i, c = user[:, fm], item[:, fm], category[:, fm]
    logit = dense["bias"] + (inputs @ dense["linear.weight"].T).squeeze(1)
    logit = logit + (user[:, bias] + item[:, bias] + category[:, bias]).squeeze(1)
    logit = logit + (u * (i + c) + i * c).sum(1)
    # Features and factors apart: nobody asks for the gradient of features.
    weight = dense["hidden1.weight"]
    hidden = torch.addmm(dense["hidden1.bias"], inputs, weight[:, 3 * _F :].T)
    hidden = torch.addmm(hidden, torch.cat((u, i, c), 1), weight[:, : 3 * _F].T).relu_()
    hidden = torch.addmm(dense["hidden2.bias"], hidden, dense["hidden2.weight"].T).relu_()
    return logit + (hidden @ dense["output.weight"].T).squeeze(1)


def serving_position(dense: Dense) -> Tensor:
    """The position term of a served score: a scalar."""
    return (dense["position_share"] * dense["position_bias"]).sum()


def score(  # noqa: PLR0917
    state: ModelState,
    user_id: int,
    item_ids: NDArray[np.uint64],
    user_features: NDArray[np.float32],
    item_features: NDArray[np.float32],
    dense: Dense | None = None,
) -> NDArray[np.float32]:
    """Click probabilities [n] of one user and n items.

    ``user_features`` [user_width], ``item_features`` [n, item_width]. ``dense`` = ``dense_tensors(state)``,
    kept by the caller to save making it. The user's half of the first layer is computed once.
    """
    with torch.inference_mode():
        logits = _serving_logits(
            state, user_id, item_ids, user_features, item_features, dense or dense_tensors(state)
        )
        return torch.sigmoid(logits).numpy()


def _serving_logits(  # noqa: PLR0917
    state: ModelState,
    user_id: int,
    item_ids: NDArray[np.uint64],
    user_features: NDArray[np.float32],
    item_features: NDArray[np.float32],
    dense: Dense,
) -> Tensor:
    shape, rank = state.shape, model_schema.RANK_WIDTH
    fm = model_schema.FM.slice
    bias = model_schema.BIAS.start
    user = _gather(state, "user", np.array([user_id], dtype=np.uint64))[:, :rank]
    item = _gather(state, "item", item_ids)[:, :rank]
    category = _gather(state, "category", category_ids(shape, item_features))[:, :rank]
    user_dense = torch.from_numpy(np.clip(user_features, -FEATURE_LIMIT, FEATURE_LIMIT))
    item_dense = torch.from_numpy(
        np.clip(item_features[:, shape.dense_columns], -FEATURE_LIMIT, FEATURE_LIMIT)
    )

    linear = dense["linear.weight"][0]
    weight = dense["hidden1.weight"]
    # Columns of the first layer behind the factors: user features, item features.
    users, split = shape.user_width, 3 * _F + shape.user_width
    u, i, c = user[0, fm], item[:, fm], category[:, fm]
    common = dense["bias"][0] + serving_position(dense) + linear[:users] @ user_dense + user[0, bias]
    logits = common + item_dense @ linear[users:] + item[:, bias] + category[:, bias]
    logits = logits + (i + c) @ u + (i * c).sum(1)
    of_user = dense["hidden1.bias"] + weight[:, _U] @ u + weight[:, 3 * _F : split] @ user_dense
    of_item = torch.cat((i, c, item_dense), dim=1)
    item_weight = torch.cat((weight[:, _I], weight[:, _C], weight[:, split:]), dim=1)
    hidden = torch.addmm(of_user, of_item, item_weight.T).relu_()
    hidden = torch.addmm(dense["hidden2.bias"], hidden, dense["hidden2.weight"].T).relu_()
    return logits + hidden @ dense["output.weight"][0]


def _gather(state: ModelState, table: str, ids: NDArray[np.uint64]) -> Tensor:
    held = state.tables[table]
    return torch.from_numpy(held.rows[held.slots(ids)])
