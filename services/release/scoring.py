"""A full model's scores of rows that were served, for the gate: the served formula in numpy.

The same arithmetic as contract.model_net (tested to agree to rounding), without torch: release scores a few
thousand rows once per full model, and what judges a model should not be the code that serves it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rec.events.v1.events_pb2 import TrainingSample
from services.contract import columns, model_schema
from services.contract.model_schema import ModelShape
from services.contract.model_state import ModelState
from services.contract.projection import Projection
from services.release.gate import Parameters

FEATURE_LIMIT = 16.0


@dataclass(frozen=True)
class Logged:
    """The columns that a sample was logged with, and how the model's come out of them; none of them lacks."""

    shape: ModelShape
    projection: Projection


def score(state: ModelState, sample: TrainingSample, logged: Logged | None = None) -> NDArray[np.float32]:
    """Click probabilities [n] of the rows of a sample; without ``logged`` its columns are the model's.
    InvalidInput when they do not fit."""
    shape, dense = state.shape, state.dense
    logged = logged or Logged(shape, Projection(shape, shape))
    ids = columns.decode("item_ids", sample.item_ids, columns.U64)
    users = columns.decode("user_features", sample.user_features, columns.F32, logged.shape.user_width)
    items = columns.decode_matrix("item_features", sample.item_features, len(ids), logged.shape.item_width)
    users, items = logged.projection.user(users), logged.projection.items(items)
    user = _rows(state, "user", np.array([sample.user_id], np.uint64))
    item, category = _rows(state, "item", ids), _rows(state, "category", _categories(shape, items))
    fm, bias = model_schema.FM.slice, model_schema.BIAS.start
    u, i, c = np.broadcast_to(user[:, fm], item[:, fm].shape), item[:, fm], category[:, fm]
    wide = np.concatenate((np.broadcast_to(users, (len(ids), len(users))), items[:, shape.dense_columns]), 1)
    wide = np.clip(wide, -FEATURE_LIMIT, FEATURE_LIMIT)
    logits = wide @ dense["linear.weight"][0] + dense["bias"][0]
    logits = logits + (dense["position_share"] * dense["position_bias"]).sum()
    logits = logits + user[:, bias] + item[:, bias] + category[:, bias] + (u * (i + c) + i * c).sum(1)
    hidden = np.concatenate((u, i, c, wide), 1)
    for layer in ("hidden1", "hidden2"):
        hidden = np.maximum(hidden @ dense[f"{layer}.weight"].T + dense[f"{layer}.bias"], 0)
    logits = logits + hidden @ dense["output.weight"][0]
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def sizes(state: ModelState) -> Parameters:
    """The largest row and the largest dense value."""
    # Numpy's max, not Python's: it does not lose a NaN.
    norms = np.array([np.linalg.norm(table.rows, axis=1).max() for table in state.tables.values()])
    dense = np.array([np.abs(values).max(initial=0) for values in state.dense.values()])
    return Parameters(float(norms.max()), float(dense.max()))


def _rows(state: ModelState, table: str, ids: NDArray[np.uint64]) -> NDArray[np.float32]:
    held = state.tables[table]
    return held.rows[held.slots(ids)][:, : model_schema.RANK_WIDTH]


def _categories(shape: ModelShape, items: NDArray[np.float32]) -> NDArray[np.uint64]:
    column = items[:, shape.category_column]
    return np.where((column >= 0) & (column < 2**24), column, 0).astype(np.uint64)
