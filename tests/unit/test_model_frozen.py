"""A frozen state is the state of its moment, whatever is written meanwhile."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.contract import model_frozen, model_state
from services.contract.delta import TableChange
from services.contract.model_state import Frozen
from services.contract.model_table import TableState
from tests.trainer_kit import new_state, random_change

# Few ids, so that rows change, leave and come back, and places are given out again.
IDS = st.lists(st.integers(1, 40), max_size=12, unique=True)
WRITES = st.lists(st.tuples(st.sampled_from(["write", "remove", "pend"]), IDS), max_size=8)


def _write(table: TableState, kind: str, ids: list[int], random: np.random.Generator) -> None:
    column = np.array(sorted(ids), np.uint64)
    if kind == "write":
        table.apply(random_change(random, "item", ids))
    elif kind == "remove":
        table.apply(replace(TableChange("item"), expired_ids=column))
    else:
        table.pending.set(column, np.ones(len(ids), np.uint32), np.full(len(ids), 7, np.int64))


@settings(deadline=None, max_examples=150)
@given(WRITES, WRITES, WRITES)
def test_every_column_is_read_as_it_was_when_frozen(
    before: list[tuple[str, list[int]]],
    between: list[tuple[str, list[int]]],
    during: list[tuple[str, list[int]]],
) -> None:
    random = np.random.default_rng(3)
    state = new_state()
    table = state.tables["item"]
    digests, frozen = [], []
    for writes in (before, between):
        for kind, ids in writes:
            _write(table, kind, ids, random)
        digests.append(model_state.digest(state))
        frozen.append(Frozen(state))
    reading = frozen[0].tables["item"].column("rows")
    wanted = table.rows[table.ids()[1]].copy() if not between else None
    for kind, ids in during:
        _write(table, kind, ids, random)
    read = list(reading)
    if wanted is not None and len(wanted):
        assert np.array_equal(np.concatenate(read), wanted)
    assert [model_state.digest(one) for one in frozen] == digests
    for one in frozen:
        assert one.rows_kept <= len(one.tables["item"])


def test_only_rows_that_change_are_kept_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_frozen, "CHUNK_ROWS", 16)
    random = np.random.default_rng(0)
    state = new_state()
    table = state.tables["user"]
    table.apply(random_change(random, "user", list(range(1, 101))))
    before = model_state.digest(state)
    frozen = Frozen(state)
    for ids in ([1, 2, 3], [3, 4], list(range(200, 900))):
        table.apply(random_change(random, "user", ids))
    assert frozen.rows_kept == 4
    assert model_state.digest(frozen) == before
    assert [len(change.ids) for change in frozen.tables["user"].changes("user")] == [16] * 6 + [4, 0]


def test_a_closed_one_and_a_forgotten_one_cost_nothing() -> None:
    state = new_state()
    table = state.tables["item"]
    table.apply(random_change(np.random.default_rng(0), "item", [1, 2]))
    closed, forgotten = Frozen(state), Frozen(state)
    assert len(table._frozen) == 2
    closed.close()
    del forgotten
    assert len(table._frozen) == 0


def test_a_state_is_read_by_one_thread_while_another_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_frozen, "CHUNK_ROWS", 64)
    random = np.random.default_rng(0)
    state = new_state()
    table = state.tables["item"]
    ids = list(range(1, 5_001))
    table.apply(random_change(random, "item", ids))
    before = model_state.digest(state)
    changes = [random_change(random, "item", random.choice(6_000, 500, replace=False) + 1) for _ in range(50)]
    done, read = threading.Event(), []
    frozen = Frozen(state)

    def reader() -> None:
        while not done.is_set():
            read.append(model_state.digest(frozen))
        read.append(model_state.digest(frozen))

    thread = threading.Thread(target=reader)
    thread.start()
    for change in changes:
        table.apply(change)
        table.apply(replace(TableChange("item"), expired_ids=change.ids[::7]))
    done.set()
    thread.join()
    assert set(read) == {before} != {model_state.digest(state)}


def test_an_array_that_somebody_looks_at_is_not_moved_under_him() -> None:
    random = np.random.default_rng(0)
    table = TableState()
    table.apply(random_change(random, "item", [1, 2, 3]))
    view = table.rows[:4]
    seen = view.copy()
    table.apply(random_change(random, "item", list(range(10, 5_000))))
    assert np.array_equal(view, seen)
    assert np.array_equal(table.rows[:4], seen) and not np.shares_memory(table.rows, view)
