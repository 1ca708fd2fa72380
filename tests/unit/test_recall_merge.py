"""The merge of recall's sources, as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.recall import kernel
from services.recall.merge import explore, interleave, merge, wanted
from services.recall.sources import NO_IDS, Proposal, Source

# Compiling is no part of a test: hypothesis gives each example a fifth of a second.
kernel.warm_up()

SHARES = {Source.VECTOR: 0.5, Source.POPULAR: 0.2, Source.FRESH: 0.1, Source.CO_CLICK: 0.1}


def u64(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


@st.composite
def situations(draw: st.DrawFn) -> tuple[np.ndarray, list[Proposal], int, str]:
    """A catalogue, proposals (of items that may have left it), n and a request id."""
    catalogue = draw(st.lists(st.integers(0, 400), unique=True, max_size=300))
    proposals = [
        Proposal(source, u64(*draw(st.lists(st.integers(0, 400), unique=True, max_size=120))), share)
        for source, share in SHARES.items()
    ]
    return u64(*catalogue), proposals, draw(st.integers(1, 200)), draw(st.text(max_size=8))


def answer(situation: tuple[np.ndarray, list[Proposal], int, str]) -> tuple[np.ndarray, np.ndarray]:
    catalogue, proposals, n, request_id = situation
    return merge(proposals, catalogue, n=n, exploration_share=0.1, request_id=request_id)


@given(situations())
def test_n_distinct_candidates_whenever_catalogue_and_proposals_have_n(situation) -> None:
    catalogue, proposals, n, _ = situation
    ids, bits = answer(situation)
    known = set(catalogue.tolist()).union(*(p.ids.tolist() for p in proposals))
    assert len(ids) == len(bits) == min(n, len(known))
    assert len(set(ids.tolist())) == len(ids)


@given(situations())
def test_bits_name_exactly_the_sources_that_proposed_the_item(situation) -> None:
    catalogue, proposals, _, _ = situation
    for item, tag in zip(*(column.tolist() for column in answer(situation)), strict=True):
        bits = sum(p.source.bit for p in proposals if item in p.ids)
        if bits:
            assert tag == bits
        else:
            assert tag == Source.EXPLORATION.bit
            assert item in catalogue


@given(situations())
def test_same_request_gives_the_same_answer(situation) -> None:
    first, second = answer(situation), answer(situation)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


@given(situations())
def test_each_source_keeps_its_own_order(situation) -> None:
    _, proposals, _, _ = situation
    ids, bits = interleave(proposals)
    place = {item: index for index, item in enumerate(ids.tolist())}
    for proposal in proposals:
        alone = [item for item in proposal.ids.tolist() if bits[place[item]] == proposal.source.bit]
        assert [place[item] for item in alone] == sorted(place[item] for item in alone)


def test_full_sources_fill_the_answer_in_proportion_to_their_shares() -> None:
    proposals = [
        Proposal(source, np.arange(1000, dtype=np.uint64) + 10_000 * source.value, share)
        for source, share in SHARES.items()
    ]
    catalogue = np.arange(100_000, 200_000, dtype=np.uint64)
    _, bits = merge(proposals, catalogue, n=1000, exploration_share=0.1, request_id="r")
    counted = {source: int((bits == source.bit).sum()) for source in Source}
    assert counted[Source.EXPLORATION] == 100
    assert counted[Source.VECTOR] == pytest.approx(500, abs=1)
    assert counted[Source.POPULAR] == pytest.approx(200, abs=1)
    assert counted[Source.FRESH] == pytest.approx(100, abs=1)
    first = bits[:90]
    assert int((first == Source.VECTOR.bit).sum()) == pytest.approx(50, abs=1)


def test_a_dead_source_leaves_its_places_to_the_others() -> None:
    vector = Proposal(Source.VECTOR, np.arange(1000, dtype=np.uint64), 0.5)
    dead = Proposal(Source.POPULAR, NO_IDS, 0.2)
    catalogue = np.arange(5000, dtype=np.uint64)
    _, bits = merge([vector, dead], catalogue, n=1000, exploration_share=0.1, request_id="r")
    assert int((bits == Source.VECTOR.bit).sum()) == 900
    assert int((bits == Source.EXPLORATION.bit).sum()) == 100


def test_an_exhausted_catalogue_gives_explorations_places_back() -> None:
    vector = Proposal(Source.VECTOR, np.arange(20, dtype=np.uint64), 0.5)
    ids, _ = merge([vector], u64(3, 99), n=10, exploration_share=0.5, request_id="r")
    assert ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 99]


def test_different_requests_explore_different_items() -> None:
    catalogue = np.arange(10_000, dtype=np.uint64)
    one = explore(catalogue, "one", taken=NO_IDS, count=100)
    other = explore(catalogue, "other", taken=NO_IDS, count=100)
    assert len(np.intersect1d(one, other)) < 20


def test_exploration_is_uniform_over_what_is_not_taken() -> None:
    catalogue = np.arange(50, dtype=np.uint64)
    taken = np.arange(25, dtype=np.uint64)
    counts = np.zeros(50)
    for request in range(2000):
        drawn = explore(catalogue, str(request), taken=taken, count=5)
        counts[drawn.astype(int)] += 1
    assert counts[:25].sum() == 0
    assert counts[25:].min() > 400 * 0.8
    assert counts[25:].max() < 400 * 1.2


@pytest.mark.parametrize(
    ("n", "share", "expected"), [(1000, 0.5, 1000), (1000, 0.1, 200), (1, 0.1, 1), (5, 0, 0)]
)
def test_a_source_proposes_up_to_twice_its_share(n: int, share: float, expected: int) -> None:
    assert wanted(n, share) == expected
