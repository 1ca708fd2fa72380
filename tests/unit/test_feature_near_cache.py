"""The near cache: what it holds is what was read last, until it is written, too old or crowded out."""

from __future__ import annotations

import numpy as np
import pytest
from feature_kit import FEATURES, reply_of, shown, states_of
from hypothesis import given
from hypothesis import strategies as st

from services.feature.near_cache import Answered, NearCache
from services.feature.program import ITEM, Layout

LAYOUT = Layout(FEATURES)
MAX_AGE_S = 10.0
AT_US = 10**15
COLUMN = [column.name for column in FEATURES.candidate_columns].index("item_activity_shown")
# What the column says after so many impressions, and back.
STATES = {n: states_of(shown(1, 1, 0, AT_US - 1, sequence) for sequence in range(n)) for n in range(40)}


def cache_of(capacity: int) -> NearCache:
    return NearCache(LAYOUT, capacity, MAX_AGE_S)


def gathered(
    cache: NearCache, ids: list[int], now_s: float, tick: int, at_us: int = AT_US
) -> tuple[list[float], list[int]]:
    into = Answered.empty(len(ids), FEATURES)
    stale = cache.gather(np.array(ids, np.uint64), at_us, int(now_s * 1e9), tick, into)
    return into.items[:, COLUMN].tolist(), stale.tolist()


def put(cache: NearCache, impressions: dict[int, int], now_s: float = 0.0, tick: int | None = None) -> None:
    keys = [(view.name, (1).to_bytes(8, "little")) for view in LAYOUT.groups[ITEM]]
    reply = reply_of([STATES[n].get(key) for key in keys for n in impressions.values()])
    ids = np.array(list(impressions), np.uint64)
    cache.put(ids, reply, int(now_s * 1e9), cache.begin() if tick is None else tick)


def said(impressions: int) -> float:
    cache = cache_of(1)
    put(cache, {1: impressions})
    return gathered(cache, [1], 0.0, 1)[0][0]


SAID = {said(n): n for n in STATES}


def look(cache: NearCache, ids: list[int], now_s: float = 0.0) -> list[int | None]:
    """Impressions of each item; None where it must be read."""
    values, stale = gathered(cache, ids, now_s, cache.begin())
    return [None if place in stale else SAID[value] for place, value in enumerate(values)]


def test_what_was_put_is_found_and_the_rest_is_to_be_read() -> None:
    cache = cache_of(4)
    assert look(cache, [1, 2]) == [None, None]
    put(cache, {1: 10, 2**64 - 1: 20})
    assert look(cache, [2**64 - 1, 5, 1, 1]) == [20, None, 10, 10]


def test_a_written_item_is_read_again() -> None:
    cache = cache_of(4)
    put(cache, {1: 10, 2: 20})
    assert cache.drop(np.array([2, 3, 2], np.uint64)) == 1
    assert look(cache, [1, 2]) == [10, None]
    put(cache, {2: 21})
    assert look(cache, [1, 2]) == [10, 21]


def test_nothing_older_than_the_bound_is_answered_even_if_it_was_never_dropped() -> None:
    cache = cache_of(4)
    put(cache, {1: 10})
    put(cache, {2: 20}, 5.0)
    assert look(cache, [1, 2], MAX_AGE_S) == [10, 20]
    assert look(cache, [1, 2], MAX_AGE_S + 0.001) == [None, 20]


def test_the_first_to_come_is_the_first_to_leave_but_never_what_the_request_has_looked_at() -> None:
    cache = cache_of(2)
    put(cache, {1: 10, 2: 20})
    put(cache, {3: 30})
    assert (look(cache, [1, 2, 3]), cache.evicted) == ([None, 20, 30], 1)
    tick = cache.begin()
    gathered(cache, [2], 0.0, tick)
    put(cache, {4: 9}, tick=tick)
    assert look(cache, [2, 3, 4]) == [20, None, 9]


def test_only_what_changed_is_computed_again() -> None:
    cache = cache_of(4)
    put(cache, {1: 10, 2: 20})
    look(cache, [1, 2])
    look(cache, [1, 2])
    assert cache.computed == 2
    put(cache, {2: 21})
    look(cache, [1, 2])
    assert cache.computed == 3


def test_a_row_that_an_event_overtook_holds_until_that_event() -> None:
    cache = cache_of(1)
    put(cache, {1: 3})
    said = [gathered(cache, [1], 0.0, cache.begin(), AT_US + late)[0][0] for late in (-1, 0, -1, 0)]
    assert [SAID[value] for value in said] == [0, 3, 0, 3]
    assert cache.computed == 4


def test_clearing_forgets_everything() -> None:
    cache = cache_of(2)
    put(cache, {1: 10, 2: 20})
    cache.clear()
    assert (look(cache, [1, 2]), len(cache)) == ([None, None], 0)


@pytest.mark.parametrize(("capacity", "age"), [(0, 1.0), (1, 0.0)])
def test_a_cache_of_nothing_is_refused(capacity: int, age: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        NearCache(LAYOUT, capacity, age)


WRITE = st.tuples(st.just("write"), st.lists(st.integers(0, 11), max_size=4))
READ = st.tuples(st.just("read"), st.lists(st.integers(0, 11), max_size=6))
CLEAR = st.tuples(st.just("clear"), st.just([]))


@given(st.integers(6, 8), st.lists(st.one_of(WRITE, READ, READ, CLEAR), max_size=30))
def test_it_never_answers_anything_but_the_newest(capacity: int, steps: list[tuple[str, list[int]]]) -> None:
    cache, truth = cache_of(capacity), dict.fromkeys(range(12), 0)
    for moment, (what, ids) in enumerate(steps):
        if what == "write":
            truth.update(dict.fromkeys(ids, moment + 1))
            cache.drop(np.array(ids, np.uint64))
        elif what == "clear":
            cache.clear()
        else:
            tick = cache.begin()
            values, stale = gathered(cache, ids, 0.0, tick)
            known = [None if place in stale else SAID[value] for place, value in enumerate(values)]
            assert all(value in (None, truth[item]) for value, item in zip(known, ids, strict=True))
            put(cache, {ids[place]: truth[ids[place]] for place in stale}, tick=tick)
            assert look(cache, ids) == [truth[item] for item in ids]
            assert len(cache) <= capacity
