"""Neighbours that recall keeps: how long, how many."""

from __future__ import annotations

import numpy as np
import pytest

from services.recall.counts import NOTHING, Counted
from services.recall.near_lists import NearLists

AGE_S = 10.0


def one(item_id: int) -> Counted:
    return Counted(np.array([item_id], np.uint64), np.ones(1))


def test_a_list_is_given_back_until_it_is_too_old():
    near, kept = NearLists(2, AGE_S), one(1)
    near.put(1, kept, 100.0)
    assert near.get(1, 100.0) is kept
    assert near.get(1, 109.99) is kept
    assert near.get(1, 110.0) is None
    assert near.get(2, 100.0) is None


def test_an_item_without_neighbours_is_kept_too():
    near = NearLists(1, AGE_S)
    near.put(1, NOTHING, 0.0)
    assert near.get(1, 1.0) is NOTHING


def test_the_one_read_longest_ago_leaves_first_and_reading_again_counts():
    near = NearLists(2, AGE_S)
    near.put(1, one(1), 0.0)
    near.put(2, one(2), 1.0)
    near.put(1, one(1), 2.0)
    near.put(3, one(3), 3.0)
    assert len(near) == 2
    assert near.get(2, 3.0) is None
    assert near.get(1, 3.0) is not None
    assert near.get(1, 11.9) is not None, "its age counts from the newer reading"
    assert near.get(3, 3.0) is not None


@pytest.mark.parametrize(("capacity", "max_age_s"), [(0, 1.0), (1, 0.0), (1, -1.0)])
def test_contradictions_are_refused(capacity, max_age_s):
    with pytest.raises(ValueError, match="above 0"):
        NearLists(capacity, max_age_s)
