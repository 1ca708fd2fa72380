"""The catalogue and what is fresh in it; counts that become ranked items."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.recall import kernel
from services.recall.catalogue import Catalogue
from services.recall.counts import Counted, hop_weights, ranked, recency_weights

# Compiling is no part of a test: hypothesis gives each example a fifth of a second.
kernel.warm_up()

changes = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 8), st.integers(0, 5)),
        st.tuples(st.just("withdraw"), st.integers(0, 8), st.just(0)),
    ),
    max_size=60,
)


@given(changes, st.integers(1, 10))
def test_catalogue_equals_a_dictionary_after_any_changes(steps, keep: int) -> None:
    catalogue, model, withdrawn = Catalogue(keep), {}, set()
    for kind, item, created in steps:
        if kind == "put":
            catalogue.put(item, created)
            model[item] = created
            withdrawn.discard(item)
        else:
            catalogue.withdraw(item)
            model.pop(item, None)
            withdrawn.add(item)
        catalogue.fresh()
    assert sorted(catalogue.ids.tolist()) == sorted(model)
    assert len(catalogue) == len(model)
    assert set(catalogue.withdrawn.tolist()) == withdrawn
    newest = sorted((item for item in model if model[item]), key=lambda item: (-model[item], item))
    assert catalogue.fresh().tolist() == newest[:keep]


def test_a_new_item_is_fresh_at_once() -> None:
    catalogue = Catalogue(2)
    for item in range(5000):
        catalogue.put(item, 1 + item)
    assert catalogue.fresh().tolist() == [4999, 4998]
    catalogue.put(77_777, 10_000)
    assert catalogue.fresh().tolist() == [77_777, 4999]
    assert 77_777 in catalogue


def test_an_item_without_creation_time_is_never_fresh() -> None:
    catalogue = Catalogue(5)
    catalogue.put(1, 0)
    assert catalogue.fresh().tolist() == []
    assert 1 in catalogue


def counted(**counts: float) -> Counted:
    """counted(i5=2.0): item 5 has the count 2."""
    ids = np.array([int(name[1:]) for name in counts], np.uint64)
    return Counted(ids, np.array(list(counts.values()), np.float64))


def test_counts_add_up_over_weighted_sets_and_ties_go_to_the_smaller_id() -> None:
    now, before = counted(i1=4, i2=1), counted(i2=6, i3=8)
    assert ranked([now, before], [1.0, 0.5], keep=10).tolist() == [1, 2, 3]
    assert ranked([now, before], [1.0, 0.6], keep=10).tolist() == [3, 2, 1]
    assert ranked([now, before], [1.0, 0.6], keep=1).tolist() == [3]


def test_nothing_counted_is_nothing_ranked() -> None:
    assert ranked([], [], keep=5).tolist() == []
    assert ranked([counted()], [1.0], keep=5).tolist() == []


def test_items_already_clicked_are_left_out() -> None:
    assert ranked([counted(i5=9, i6=1)], [1.0], keep=10, without=[5]).tolist() == [6]


def test_ids_above_two_to_the_63_survive() -> None:
    big = 2**64 - 3
    ids = ranked([Counted(np.array([big], np.uint64), np.ones(1))], [1.0], keep=1)
    assert ids.dtype == np.uint64
    assert ids.tolist() == [big]


def test_weights_fall_with_age() -> None:
    assert hop_weights(3, 10, 10) == pytest.approx([1, 0.5, 0.25])
    assert recency_weights(3) == pytest.approx([1, 1 / 2, 1 / 3])
