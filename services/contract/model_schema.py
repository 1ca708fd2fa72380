"""Shapes of the model: tables, named columns of a row, dense tensors, and the hash over them.

A table key is (table, 64-bit id). All tables share one row layout, so that a delta, a base and a
checkpoint are the same three matrices (rows, optimizer, meta) per table. Tables are the same in all models;
the widths of the dense tensors follow from the features that a model sees (``ModelShape``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import xxhash

from services.contract.view_registry import FeatureSet

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
# Dense tensors, in the order of digests and files.
DENSE = (
    "bias",
    "hidden1.weight",
    "hidden1.bias",
    "hidden2.weight",
    "hidden2.bias",
    "output.weight",
    "linear.weight",
    # Training-only input: logit offset by display position; serving uses its mean under position_share.
    "position_bias",
    # Share of trained rows by position (a running mean, not learned by gradient).
    "position_share",
)


@dataclass(frozen=True)
class ModelShape:
    """What follows from the features that a model sees: their hash, their names in order, and which item
    column is the category, looked up in a table and no part of the dense input."""

    schema_hash: int
    user_columns: tuple[str, ...]
    item_columns: tuple[str, ...]
    category_column: int

    @property
    def user_width(self) -> int:
        """Floats per request."""
        return len(self.user_columns)

    @property
    def item_width(self) -> int:
        """Floats per candidate, the category among them."""
        return len(self.item_columns)

    @cached_property
    def dense_columns(self) -> list[int]:
        """The item columns that are not the category."""
        return [index for index in range(self.item_width) if index != self.category_column]

    @property
    def tower_input(self) -> int:
        """Three factor vectors, the user's features, the item's features without the category."""
        return 3 * FACTORS + self.user_width + self.item_width - 1

    @cached_property
    def dense(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the dense tensors."""
        shapes = (
            (1,),
            (HIDDEN[0], self.tower_input),
            (HIDDEN[0],),
            (HIDDEN[1], HIDDEN[0]),
            (HIDDEN[1],),
            (1, HIDDEN[1]),
            (1, self.user_width + self.item_width - 1),
            (POSITIONS,),
            (POSITIONS,),
        )
        return dict(zip(DENSE, shapes, strict=True))

    @cached_property
    def model_hash(self) -> int:
        """xxh64 of everything that two models must share for one to be an update of the other."""
        parts = [f"table={name}" for name in TABLES]
        parts += [f"row={ROW_WIDTH}", f"optimizer={OPTIMIZER_WIDTH}", f"factors={FACTORS},{RECALL_FACTORS}"]
        parts += [f"dense={name}{list(shape)}" for name, shape in self.dense.items()]
        parts.append(f"features={self.schema_hash:016x}")
        return xxhash.xxh64_intdigest("\n".join(parts).encode(), seed=0)


def shape_of(feature_set: FeatureSet) -> ModelShape:
    """The shape of models that see a set."""
    return ModelShape(
        feature_set.schema_hash,
        tuple(column.name for column in feature_set.request_columns),
        tuple(column.name for column in feature_set.candidate_columns),
        feature_set.category_column,
    )
