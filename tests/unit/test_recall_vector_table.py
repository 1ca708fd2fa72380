"""The vector table against a dictionary, the search against brute force, after random changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.recall.vector_table import VectorTable, best, largest, live

FACTORS = 4
some_ids = st.lists(st.integers(0, 60), unique=True, max_size=30)


class TableMachine(RuleBasedStateMachine):
    """Upserts and removals in any order; the table must hold what the dictionary holds."""

    def __init__(self) -> None:
        super().__init__()
        self.table = VectorTable(FACTORS + 1)
        self.model: dict[int, np.ndarray] = {}
        self.generator = np.random.default_rng(7)

    @rule(ids=some_ids)
    def upsert(self, ids: list[int]) -> None:
        rows = self.generator.standard_normal((len(ids), FACTORS + 1)).astype(np.float32)
        self.table.upsert(np.array(ids, np.uint64), rows)
        self.model.update(zip(ids, rows, strict=True))

    @rule(ids=some_ids)
    def remove(self, ids: list[int]) -> None:
        self.table.remove(np.array(ids, np.uint64))
        for key in ids:
            self.model.pop(key, None)

    @invariant()
    def holds_exactly_the_model(self) -> None:
        there = live(self.table.rows)
        assert sorted(self.table.ids[there].tolist()) == sorted(self.model)
        assert self.table.size == len(self.model) == there.sum()
        for key, row in self.model.items():
            held = self.table.get(key)
            assert held is not None
            assert np.array_equal(held, row)
        assert self.table.get(1_000_000) is None

    @invariant()
    def search_equals_brute_force(self) -> None:
        user = self.generator.standard_normal(FACTORS).astype(np.float32)
        scores = {key: float(row[:FACTORS] @ user + row[FACTORS]) for key, row in self.model.items()}
        expected = sorted(scores, key=lambda key: (-scores[key], key))[:10]
        found = best(self.table, user, 10).tolist()
        assert np.allclose([scores[key] for key in found], [scores[key] for key in expected], atol=1e-5)
        assert len(set(found)) == len(expected)


TableMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestTable = TableMachine.TestCase


def test_search_orders_best_first_and_equal_scores_by_id() -> None:
    table = VectorTable(2)
    table.upsert(np.array([9, 3, 5, 7], np.uint64), np.array([[1, 0], [1, 0], [2, 0], [0, 0]], np.float32))
    assert best(table, np.array([1.0], np.float32), 3).tolist() == [5, 3, 9]


def test_bias_counts() -> None:
    table = VectorTable(2)
    table.upsert(np.array([1, 2], np.uint64), np.array([[1, 0], [0, 3]], np.float32))
    assert best(table, np.array([1.0], np.float32), 2).tolist() == [2, 1]


@given(st.integers(0, 20))
def test_search_of_an_empty_table_finds_nothing(k: int) -> None:
    assert best(VectorTable(2), np.array([1.0], np.float32), k).tolist() == []


def test_growth_keeps_all_rows() -> None:
    table = VectorTable(1)
    for start in range(0, 5000, 500):
        ids = np.arange(start, start + 500, dtype=np.uint64)
        table.upsert(ids, ids.astype(np.float32).reshape(-1, 1))
    assert table.size == 5000
    assert np.array_equal(table.rows[:, 0], table.ids.astype(np.float32))


def test_rows_of_the_wrong_width_are_refused() -> None:
    with pytest.raises(ValueError, match="width 2"):
        VectorTable(2).upsert(np.array([1], np.uint64), np.zeros((1, 3), np.float32))


@given(st.integers(1, 40_000), st.integers(1, 3_000), st.integers(0, 2**32), st.integers(1, 5_000))
@settings(max_examples=150, deadline=None)
def test_the_largest_are_the_largest_however_many_and_however_tied(
    size: int, k: int, seed: int, distinct: int
) -> None:
    scores = np.random.default_rng(seed).integers(0, distinct, size).astype(np.float32)
    k = min(k, size)
    places = largest(scores, k)
    assert len(np.unique(places)) == k
    assert np.array_equal(np.sort(scores[places]), np.sort(scores)[size - k :])


def test_scores_that_fool_the_sample_are_partitioned_all_the_same() -> None:
    """Every sampled score is large, and nearly no other."""
    scores = np.zeros(65_536, np.float32)
    scores[::16] = 1.0
    scores[1:900] += 2.0
    assert np.array_equal(np.sort(scores[largest(scores, 1_000)]), np.sort(scores)[-1_000:])
