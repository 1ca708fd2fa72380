"""The compiled loops say what plain Python says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.recall import kernel

# Few ids, so that many are equal, and some whose upper bits alone differ.
IDS = st.integers(0, 30).map(lambda n: n % 11 if n < 20 else (n << 59) & (2**64 - 1))


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    kernel.warm_up()


@given(
    st.lists(st.tuples(st.lists(IDS, unique=True, max_size=20), st.sampled_from([0.1, 0.2, 0.5])), min_size=1)
)
def test_sources_are_interleaved_by_place(sources: list[tuple[list[int], float]]) -> None:
    places = [
        ((rank + 0.5) / share, source, item_id)
        for source, (items, share) in enumerate(sources)
        for rank, item_id in enumerate(items)
    ]
    bits: dict[int, int] = {}
    for _, source, item_id in sorted(places):
        bits[item_id] = bits.get(item_id, 0) | 1 << source % 8
    ids, found = kernel.interleaved(
        np.array([item_id for items, _ in sources for item_id in items], np.uint64),
        np.cumsum([len(items) for items, _ in sources]),
        np.array([share for _, share in sources]),
        np.array([1 << source % 8 for source in range(len(sources))], np.uint8),
    )
    assert dict(zip(ids.tolist(), found.tolist(), strict=True)) == bits
    assert ids.tolist() == list(bits)


@given(st.lists(IDS), st.lists(IDS), st.integers(0, 20))
def test_what_is_taken_is_left_out(ids: list[int], taken: list[int], limit: int) -> None:
    kept = kernel.without(np.array(ids, np.uint64), np.array(taken, np.uint64), limit)
    assert kept.tolist() == [item_id for item_id in ids if item_id not in taken][:limit]
    listed = kernel.absent(np.array(ids, np.uint64), np.array(taken, np.uint64))
    assert listed.dtype == np.bool_ and listed.tolist() == [item_id not in taken for item_id in ids]


@given(st.lists(st.tuples(IDS, st.floats(-10, 10))))
def test_amounts_are_summed_in_their_order(rows: list[tuple[int, float]]) -> None:
    sums: dict[int, float] = {}
    for item_id, amount in rows:
        sums[item_id] = sums[item_id] + amount if item_id in sums else amount
    ids, found = kernel.summed(
        np.array([item_id for item_id, _ in rows], np.uint64), np.array([amount for _, amount in rows])
    )
    assert ids.tolist() == list(sums)
    assert found.tolist() == list(sums.values())


def test_many_ids_whose_slots_collide() -> None:
    """All distinct: each is found again, however long the row of slots is."""
    ids = (np.arange(5_000, dtype=np.uint64) << np.uint64(50)) | np.arange(5_000, dtype=np.uint64)
    distinct, sums = kernel.summed(np.concatenate([ids, ids]), np.ones(10_000))
    assert distinct.tolist() == ids.tolist()
    assert set(sums.tolist()) == {2.0}
