"""Garbage from a dependency is seen before anything is built on it; a good answer is passed on untouched."""

from __future__ import annotations

import numpy as np
import pytest

from rec.v1.feature_pb2 import GetFeaturesResponse
from rec.v1.provenance_pb2 import Degradation, RecallSource
from rec.v1.ranking_pb2 import RankResponse
from rec.v1.recall_pb2 import RetrieveResponse
from services.contract.errors import InvalidInput
from services.contract.feature_sets import FEATURE_SETS
from services.gateway import answers, response
from services.gateway.validation import Wish
from services.recall.sources import Source
from tests.feature_kit import FEATURES


def u64(*values: int) -> np.ndarray:
    return np.array(values, "<u8")


def f32(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


CANDIDATES = answers.Candidates(u64(30, 10, 20).tobytes(), u64(30, 10, 20), np.array([2, 4, 6], np.uint8))


@pytest.mark.parametrize(
    ("item_ids", "sources"),
    [
        (b"1234567", b"\2"),
        (u64(1, 2).tobytes(), b"\2"),
        (u64(1, 1).tobytes(), b"\2\2"),
        (u64(1, 2, 3, 4).tobytes(), b"\2\2\2\2"),
    ],
)
def test_bad_candidates_are_refused(item_ids: bytes, sources: bytes) -> None:
    with pytest.raises(InvalidInput):
        answers.read_candidates(RetrieveResponse(item_ids=item_ids, sources=sources), asked=3)


def columns_of(user: bytes, items: bytes) -> GetFeaturesResponse:
    """Of the right features."""
    return GetFeaturesResponse(schema_hash=FEATURES.schema_hash, user_features=user, item_features=items)


def test_columns_of_other_features_are_refused() -> None:
    other = FEATURE_SETS["movielens"]
    message = GetFeaturesResponse(
        schema_hash=other.schema_hash,
        user_features=bytes(4 * FEATURES.user_width),
        item_features=bytes(4 * FEATURES.item_width - 4),
    )
    allowed = f"schema_hash.*{other.schema_hash:016x}.*{FEATURES.schema_hash:016x}"
    with pytest.raises(InvalidInput, match=allowed):
        answers.read_features(message, FEATURES, items=1)


def test_columns_of_a_set_that_has_grown_are_passed_on_as_they_came() -> None:
    user, items = f32(*[0.5] * (FEATURES.user_width + 1)), f32(*[0.5] * 2 * (FEATURES.item_width + 3))
    message = GetFeaturesResponse(schema_hash=1, user_features=user, item_features=items)
    read = answers.read_features(message, FEATURES, items=2)
    assert (read.schema_hash, read.user, read.items, read.degraded) == (1, user, items, False)
    for bad in (
        {"user_features": user[:-2]},
        {"item_features": items[:-4]},
        {"item_features": f32(*[0.0] * 2 * (FEATURES.item_width - 1))},
        {"item_features": items[:-4] + f32(float("nan"))},
    ):
        with pytest.raises(InvalidInput):
            answers.read_features(
                GetFeaturesResponse(
                    **{"schema_hash": 1, "user_features": user, "item_features": items} | bad
                ),
                FEATURES,
                items=2,
            )


@pytest.mark.parametrize("bad", [b"", f32(1.0), f32(*[float("nan")] * FEATURES.user_width)])
def test_bad_user_columns_are_refused(bad: bytes) -> None:
    items = f32(*[0.0] * FEATURES.item_width)
    with pytest.raises(InvalidInput):
        answers.read_features(columns_of(bad, items), FEATURES, items=1)


def test_infinite_item_columns_are_refused() -> None:
    user, items = f32(*[0.0] * FEATURES.user_width), f32(*[float("inf")] * FEATURES.item_width)
    message = columns_of(user, items)
    with pytest.raises(InvalidInput, match="item_features"):
        answers.read_features(message, FEATURES, items=1)


@pytest.mark.parametrize(
    ("item_ids", "scores"),
    [
        (u64(10).tobytes(), f32(0.5)),
        (u64(10, 99).tobytes(), f32(0.5, 0.4)),
        (u64(10, 10).tobytes(), f32(0.5, 0.4)),
        (u64(10, 20).tobytes(), f32(0.5, float("nan"))),
        (u64(10, 20).tobytes(), f32(0.5)),
        (u64(10, 2**64 - 1).tobytes(), f32(0.5, 0.1)),
    ],
)
def test_a_bad_ranking_is_refused(item_ids: bytes, scores: bytes) -> None:
    with pytest.raises(InvalidInput):
        answers.read_ranked(RankResponse(item_ids=item_ids, scores=scores), CANDIDATES, n=2)


def test_a_good_ranking_keeps_its_order_scores_and_sources() -> None:
    ranked = RankResponse(item_ids=u64(20, 30).tobytes(), scores=f32(0.5, 0.25))
    ranked.provenance.arm = "online"
    ranked.provenance.degraded.add(source="ranking.arm", reason="stale")
    ranked.shadows.add(arm="frozen", scored=True)
    built = response.build(
        Wish("r", 1, 2, 3, 3, None, "", ()),
        CANDIDATES,
        answers.read_ranked(ranked, CANDIDATES, n=2),
        ranked=ranked,
        degraded=[Degradation(source="recall.popular", reason="stale")],
        schema_hash=5,
        served_us=1_000_001,
    )
    assert [(item.item_id, item.score, list(item.sources)) for item in built.items] == [
        (20, 0.5, [RecallSource.RECALL_SOURCE_VECTOR, RecallSource.RECALL_SOURCE_POPULAR]),
        (30, 0.25, [RecallSource.RECALL_SOURCE_VECTOR]),
    ]
    assert built.candidates == 3
    assert built.provenance.scored
    assert built.provenance.arm == "online"
    assert built.provenance.request_id == "r"
    assert [part.source for part in built.provenance.degraded] == ["ranking.arm", "recall.popular"]
    assert built.provenance.served_at.nanos == 1000
    assert [shadow.arm for shadow in built.shadows] == ["frozen"]


def test_an_unscored_answer_keeps_the_order_of_the_candidates() -> None:
    built = response.build(
        Wish("r", 1, 2, 3, 3, None, "", ()),
        CANDIDATES,
        answers.unscored(CANDIDATES, n=2),
        ranked=None,
        degraded=[],
        schema_hash=5,
        served_us=0,
    )
    assert [item.item_id for item in built.items] == [30, 10]
    assert not built.provenance.scored


def test_every_tag_decodes_to_its_sources() -> None:
    for tag in range(256):
        assert sum(1 << source for source in answers.SOURCES_OF[tag]) == tag & 0b11111110


def test_recall_and_protos_number_the_sources_alike() -> None:
    for source in Source:
        assert RecallSource.Value(f"RECALL_SOURCE_{source.name}") == source.value
