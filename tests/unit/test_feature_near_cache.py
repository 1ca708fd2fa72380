"""The near cache: what it holds is what was read last, until it is written, too old or crowded out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.contract.feature_layout import ITEM_DTYPE
from services.feature.near_cache import NearCache

MAX_AGE_S = 10.0


def rows(*impressions: int) -> NDArray:
    made = np.zeros(len(impressions), ITEM_DTYPE)
    made["version"], made["impressions"] = 1, impressions
    return made


def look(cache: NearCache, ids: list[int], now_s: float = 0.0) -> list[int | None]:
    """Impressions of each item; None where it must be read."""
    found, unknown = cache.look(np.array(ids, np.uint64), now_s)
    values: list[int | None] = found["impressions"].tolist()
    for position in unknown:
        values[position] = None
    return values


def test_what_was_put_is_found_and_the_rest_is_to_be_read() -> None:
    cache = NearCache(4, MAX_AGE_S)
    assert look(cache, [1, 2]) == [None, None]
    cache.put([1, 2**64 - 1], rows(10, 20), 0.0)
    assert look(cache, [2**64 - 1, 5, 1, 1]) == [20, None, 10, 10]


def test_a_written_item_is_read_again() -> None:
    cache = NearCache(4, MAX_AGE_S)
    cache.put([1, 2], rows(10, 20), 0.0)
    assert cache.drop([2, 3]) == 1
    assert look(cache, [1, 2]) == [10, None]
    cache.put([2], rows(21), 0.0)
    assert look(cache, [1, 2]) == [10, 21]


def test_nothing_older_than_the_bound_is_answered_even_if_it_was_never_dropped() -> None:
    cache = NearCache(4, MAX_AGE_S)
    cache.put([1], rows(10), 0.0)
    cache.put([2], rows(20), 5.0)
    assert look(cache, [1, 2], MAX_AGE_S) == [10, 20]
    assert look(cache, [1, 2], MAX_AGE_S + 0.001) == [None, 20]


def test_the_first_to_come_is_the_first_to_leave() -> None:
    cache = NearCache(2, MAX_AGE_S)
    assert cache.put([1, 2], rows(10, 20), 0.0) == 0
    assert cache.put([3], rows(30), 0.0) == 1
    assert look(cache, [1, 2, 3]) == [None, 20, 30]
    assert cache.put([4, 5, 6], rows(40, 50, 60), 0.0) == 2
    assert look(cache, [2, 3, 4, 5, 6]) == [None, None, None, 50, 60]


def test_clearing_forgets_everything() -> None:
    cache = NearCache(2, MAX_AGE_S)
    cache.put([1, 2], rows(10, 20), 0.0)
    cache.clear()
    assert (look(cache, [1, 2]), len(cache)) == ([None, None], 0)


@pytest.mark.parametrize(("capacity", "age"), [(0, 1.0), (1, 0.0)])
def test_a_cache_of_nothing_is_refused(capacity: int, age: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        NearCache(capacity, age)


WRITE = st.tuples(st.just("write"), st.lists(st.integers(0, 11), max_size=4))
READ = st.tuples(st.just("read"), st.lists(st.integers(0, 11), max_size=6))
CLEAR = st.tuples(st.just("clear"), st.just([]))


@given(st.integers(1, 8), st.lists(st.one_of(WRITE, READ, READ, CLEAR), max_size=60))
def test_it_never_answers_anything_but_the_newest(capacity: int, steps: list[tuple[str, list[int]]]) -> None:
    cache, truth, held = NearCache(capacity, MAX_AGE_S), dict.fromkeys(range(12), 0), 0
    for moment, (what, ids) in enumerate(steps):
        if what == "write":
            truth.update(dict.fromkeys(ids, moment + 1))
            cache.drop(ids)
        elif what == "clear":
            cache.clear()
        else:
            known = look(cache, ids)
            assert all(value in (None, truth[item]) for value, item in zip(known, ids, strict=True))
            unknown = [item for value, item in zip(known, ids, strict=True) if value is None]
            cache.put(unknown, rows(*(truth[item] for item in unknown)), 0.0)
            held = max(held, len(cache))
    assert held <= capacity
