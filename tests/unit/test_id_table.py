"""The id table against a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.contract.id_table import ABSENT, IdTable

# Few distinct ids, so that inserts and deletes meet; multiples of a power of two land in neighbouring slots.
IDS = st.lists(st.integers(0, 200).map(lambda n: (n * 2**57) % 2**64 + n), max_size=40)
OPERATIONS = st.lists(st.tuples(st.sampled_from(["insert", "delete"]), IDS), max_size=30)


@settings(deadline=None, max_examples=150)
@given(OPERATIONS)
def test_table_is_a_dictionary_whose_rows_are_distinct(operations: list[tuple[str, list[int]]]) -> None:
    table, model = IdTable(), {}
    for kind, ids in operations:
        column = np.array(ids, np.uint64)
        if kind == "insert":
            rows = table.insert(column)
            for key, row in zip(ids, rows.tolist(), strict=True):
                assert model.setdefault(key, row) == row
        else:
            freed = table.delete(column)
            for key, row in zip(ids, freed.tolist(), strict=True):
                assert model.pop(key, ABSENT) == row
        assert len(table) == len(model)
        assert len(set(model.values())) == len(model)
        assert all(0 <= row < table.row_limit for row in model.values())
    everything = np.arange(300, dtype=np.uint64)
    known = np.array(sorted(model), np.uint64)
    assert table.lookup(known).tolist() == [model[key] for key in sorted(model)]
    absent = [key for key in everything.tolist() if key not in model]
    assert (table.lookup(np.array(absent, np.uint64)) == ABSENT).all()
    ids, rows = table.items()
    assert dict(zip(ids.tolist(), rows.tolist(), strict=True)) == model


def test_rows_of_deleted_ids_are_used_again() -> None:
    table = IdTable()
    table.insert(np.arange(1_000, dtype=np.uint64))
    for start in range(1_000, 20_000, 1_000):
        table.delete(np.arange(start - 1_000, start, dtype=np.uint64))
        table.insert(np.arange(start, start + 1_000, dtype=np.uint64))
    assert table.row_limit == 1_000


def test_growing_keeps_every_row() -> None:
    table = IdTable()
    ids = np.random.default_rng(1).integers(0, 2**64, 50_000, dtype=np.uint64)
    rows = np.concatenate([table.insert(part) for part in np.array_split(ids, 37)])
    assert (table.lookup(ids) == rows).all()
    assert len(np.unique(rows)) == len(np.unique(ids))


def test_a_copy_shares_nothing() -> None:
    table = IdTable()
    table.insert(np.array([1, 2], np.uint64))
    twin = table.copy()
    twin.delete(np.array([1], np.uint64))
    twin.insert(np.array([3], np.uint64))
    assert table.lookup(np.array([1, 3], np.uint64)).tolist() == [0, ABSENT]


def test_read_only_columns_are_accepted() -> None:
    table = IdTable()
    table.insert(np.frombuffer(np.arange(5, dtype=np.uint64).tobytes(), np.uint64))
    assert len(table) == 5
