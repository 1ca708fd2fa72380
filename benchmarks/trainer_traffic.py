"""What both trainers learn: the same rows, for ours under 64-bit ids, for the peer under row numbers.

Users and items are drawn by Zipf's law, as in the simulated world; all of them have a row when it begins. One
row in a hundred shows an item that nobody has seen: ours counts it and admits it when it comes again, the
peer has a row for it at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.contract import model_schema
from services.contract.feature_sets import FEATURE_SETS, WORLD
from services.contract.model_schema import shape_of
from services.contract.model_state import ModelState
from services.contract.model_table import TableState
from trainer.rows import initial_dense, initial_rows
from trainer.samples import Batch

SHAPE = shape_of(FEATURE_SETS[WORLD])
CATEGORIES = 20
ROWS = 4_096
NEW_SHARE = 0.01
CLICKED_SHARE = 0.08
EXPONENT = 1.05
START_US = 1_700_000_000_000_000


@dataclass(frozen=True)
class Sizes:
    """Rows of the tables, and batches of ROWS rows that are gone through again and again."""

    users: int = 200_000
    items: int = 1_000_000
    batches: int = 24


class Traffic:
    """Batches as columns; row numbers are those of the peer."""

    def __init__(self, sizes: Sizes, seed: int = 1) -> None:
        self.sizes = sizes
        rng = np.random.default_rng(seed)
        self.user_ids = rng.integers(1, 2**63, sizes.users, dtype=np.uint64)
        self.item_ids = rng.integers(1, 2**63, sizes.items, dtype=np.uint64)
        n = sizes.batches * ROWS
        self.users = _zipf(rng, sizes.users, n)
        self.items = _zipf(rng, sizes.items, n)
        self.categories = (self.items % CATEGORIES).astype(np.int64)
        self._new = rng.random(n) < NEW_SHARE
        self.labels = (rng.random(n) < CLICKED_SHARE).astype(np.float32)
        self.positions = rng.integers(0, 10, n)
        self.user_features = rng.normal(0, 1, (n, SHAPE.user_width)).astype(np.float32)
        self.item_features = rng.normal(0, 1, (n, SHAPE.item_width)).astype(np.float32)
        self.item_features[:, SHAPE.category_column] = self.categories

    def batches(self, number: int = 0) -> list[Batch]:
        """Ours, of one time through them: new items are others each time, and each comes twice or so."""
        n = len(self.labels)
        rng = np.random.default_rng((17, number))
        items = self.item_ids[self.items]
        fresh = rng.integers(1, 2**63, 1 + int(self._new.sum()) // 2, dtype=np.uint64)
        items[self._new] = rng.choice(fresh, int(self._new.sum()))
        whole = Batch(
            records=[],
            owner=np.zeros(n, np.int64),
            user_ids=self.user_ids[self.users],
            item_ids=items,
            labels=self.labels,
            scores=np.full(n, CLICKED_SHARE, np.float32),
            positions=self.positions,
            negatives=np.ones(n, np.float32),
            user_features=self.user_features,
            item_features=self.item_features,
            occurred_us=START_US + number * n + np.arange(n),
        )
        return [whole.rows(start, start + ROWS) for start in range(0, n, ROWS)]

    def state(self, seed: int = 1) -> ModelState:
        """A model in which every user, item and category has a row."""
        state = ModelState(SHAPE, dense=initial_dense(SHAPE, seed))
        categories = np.arange(CATEGORIES, dtype=np.uint64)
        for name, ids in (("user", self.user_ids), ("item", self.item_ids), ("category", categories)):
            _fill(state.tables[name], name, np.unique(ids))
        return state

    def write(self, path: Path) -> None:
        """The peer's."""
        np.savez(
            path,
            rows=np.array([self.sizes.users, self.sizes.items, CATEGORIES]),
            factors=np.array(model_schema.FACTORS),
            hidden=np.array(model_schema.HIDDEN),
            category_column=np.array(SHAPE.category_column),
            batch_rows=np.array(ROWS),
            users=self.users,
            items=self.items,
            categories=self.categories,
            labels=self.labels,
            positions=self.positions,
            user_features=self.user_features,
            item_features=self.item_features,
        )


def _fill(table: TableState, name: str, ids: NDArray[np.uint64]) -> None:
    slots = table.add(ids)
    table.rows[slots] = initial_rows(ids, name, 0.05)
    table.counts[slots] = 10
    table.last_seen_us[slots] = START_US


def _zipf(rng: np.random.Generator, size: int, n: int) -> NDArray[np.int64]:
    weights = np.cumsum(1 / np.arange(1, size + 1) ** EXPONENT)
    return np.searchsorted(weights, rng.random(n) * weights[-1]).astype(np.int64)
