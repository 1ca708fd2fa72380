"""Shapes of the model: tables, named columns of a row, dense tensors, and the hash over them.

A table key is (table, 64-bit id). All tables share one row layout, so that a delta, a base and a
checkpoint are the same three matrices (rows, optimizer, meta) per table.
"""

from __future__ import annotations

from dataclasses import dataclass

import xxhash

from services.contract import features

TABLES = ("user", "item", "category")
FACTORS = 16
RECALL_FACTORS = 16


@dataclass(frozen=True)
class Columns:
    """A named range of a row: [start, stop)."""

    start: int
    stop: int

    @property
    def slice(self) -> slice:
        """For numpy and torch indexing of the second axis."""
        return slice(self.start, self.stop)


BIAS = Columns(0, 1)
FM = Columns(1, 1 + FACTORS)
# Ranking reads [0, RANK_WIDTH) of a row, recall reads the rest.
RANK_WIDTH = 1 + FACTORS
RECALL = Columns(RANK_WIDTH, RANK_WIDTH + RECALL_FACTORS)
RECALL_BIAS = Columns(RANK_WIDTH + RECALL_FACTORS, RANK_WIDTH + RECALL_FACTORS + 1)
ROW_WIDTH = RECALL_BIAS.stop
# Row-wise Adagrad keeps one accumulator per row and column group: ranking's columns, recall's columns.
OPTIMIZER_WIDTH = 2

HIDDEN = (256, 128)
POSITIONS = 32
# Tower input: three factor vectors, the user's dense features, the item's dense features (without the
# category id).
TOWER_INPUT = 3 * FACTORS + features.USER_WIDTH + features.ITEM_WIDTH - 1

DENSE_SHAPES: dict[str, tuple[int, ...]] = {
    "bias": (1,),
    "hidden1.weight": (HIDDEN[0], TOWER_INPUT),
    "hidden1.bias": (HIDDEN[0],),
    "hidden2.weight": (HIDDEN[1], HIDDEN[0]),
    "hidden2.bias": (HIDDEN[1],),
    "output.weight": (1, HIDDEN[1]),
    "linear.weight": (1, features.USER_WIDTH + features.ITEM_WIDTH - 1),
    # Training-only input: logit offset by display position; serving uses its mean under position_share.
    "position_bias": (POSITIONS,),
    # Share of trained rows by position (a running mean, not learned by gradient).
    "position_share": (POSITIONS,),
}


def _canonical() -> str:
    parts = [f"table={name}" for name in TABLES]
    parts += [f"row={ROW_WIDTH}", f"optimizer={OPTIMIZER_WIDTH}", f"factors={FACTORS},{RECALL_FACTORS}"]
    parts += [f"dense={name}{list(shape)}" for name, shape in DENSE_SHAPES.items()]
    parts.append(f"features={features.SCHEMA_HASH:016x}")
    return "\n".join(parts)


MODEL_HASH = xxhash.xxh64_intdigest(_canonical().encode(), seed=0)
