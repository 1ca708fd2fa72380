"""How fast this machine is, so that a peer's floor can be one of the machine: named, and in the same run.

The floors were set where ranking 1,000 candidates (plain_model, one thread) takes RANK_MS.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.plain_model import DENSE, PlainModel
from services.contract import model_schema
from services.contract.feature_sets import FEATURE_SETS, WORLD
from services.contract.model_schema import shape_of

RANK_MS = 1.6
CANDIDATES, SERVED = 1_000, 100
CALLS = 200


@dataclass(frozen=True)
class Calibration:
    """What ranking alone takes here, median milliseconds."""

    rank_ms: float

    def floor(self, value: float) -> float:
        """A floor here: lower where the machine is slower, never higher."""
        return value * min(1.0, RANK_MS / self.rank_ms)


def calibrate(calls: int = CALLS) -> Calibration:
    """Ranks the same candidates again and again, with one thread of torch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = _model()
    items = np.arange(CANDIDATES)
    given = model.user_features[0], model.item_features[items]
    took = []
    for _ in range(calls):
        began = time.perf_counter()
        model.rank(0, items, *given, SERVED)
        took.append((time.perf_counter() - began) * 1000)
    torch.set_num_threads(threads)
    return Calibration(round(statistics.median(took), 3))


def _model() -> PlainModel:
    shape, rng = shape_of(FEATURE_SETS[WORLD]), np.random.default_rng(6)

    def values(*size: int) -> np.ndarray:
        return rng.normal(0, 0.1, size).astype(np.float32)

    of_items = values(CANDIDATES, shape.item_width)
    of_items[:, shape.category_column] = 0
    return PlainModel(
        {
            "item_vectors": values(CANDIDATES, model_schema.RECALL_FACTORS + 1),
            "user_vectors": values(1, model_schema.RECALL_FACTORS),
            "item_features": of_items,
            "user_features": values(1, shape.user_width),
            "item_rows": values(CANDIDATES, model_schema.RANK_WIDTH),
            "user_rows": values(1, model_schema.RANK_WIDTH),
            "category_rows": values(1, model_schema.RANK_WIDTH),
            "category_column": np.array(shape.category_column),
            **{f"{DENSE}{name}": values(*size) for name, size in shape.dense.items()},
        }
    )
