"""The feature server's rules: what may be asked, when Redis is tried, what the answer says."""

from __future__ import annotations

import numpy as np
import pytest
from feature_kit import FEATURES
from pydantic import ValidationError

from rec.v1.feature_pb2 import GetFeaturesRequest, GetFeaturesResponse
from services.contract import times
from services.contract.errors import InvalidInput
from services.feature import catalogue, query
from services.feature.answer import Reading
from services.feature.breaker import Breaker
from services.feature.near_cache import NearCache
from services.feature.program import Layout
from services.feature.settings import FeatureSettings


def test_every_bad_field_is_named_at_once() -> None:
    request = GetFeaturesRequest(request_id="x" * 65, item_ids=b"1234567", occurred_at=times.from_us(0))
    with pytest.raises(InvalidInput) as caught:
        query.parse(request, 1)
    assert [v.field for v in caught.value.violations] == ["item_ids", "request_id", "occurred_at"]


def test_ten_thousand_items_are_the_limit_and_none_are_fine() -> None:
    assert len(query.parse(GetFeaturesRequest(item_ids=bytes(80_000)), 1).item_ids) == 10_000
    assert len(query.parse(GetFeaturesRequest(), 1).item_ids) == 0
    with pytest.raises(InvalidInput):
        query.parse(GetFeaturesRequest(item_ids=bytes(80_008)), 1)


def test_an_unset_time_means_now() -> None:
    assert query.parse(GetFeaturesRequest(), 77).at_us == 77
    assert query.parse(GetFeaturesRequest(occurred_at=times.from_us(5)), 77).at_us == 5


@pytest.mark.parametrize(("barrier", "timeout"), [("", 1.0), ("x" * 129, 1.0), ("b", 0.0), ("b", 61.0)])
def test_a_barrier_wait_has_an_id_and_at_most_a_minute(barrier: str, timeout: float) -> None:
    with pytest.raises(InvalidInput):
        query.barrier_wait_s(barrier, timeout)


def test_an_unset_timeout_is_the_longest() -> None:
    assert query.barrier_wait_s("b", None) == query.MAX_BARRIER_WAIT_S


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_probe_through() -> None:
    breaker = Breaker(failures=3, pause_s=1.0)
    assert [breaker.failed(0.0), breaker.failed(0.0)] == [False, False]
    breaker.succeeded()
    assert [breaker.failed(0.0) for _ in range(3)] == [False, False, True]
    assert not breaker.allows(0.9)
    assert breaker.allows(1.0)
    assert not breaker.allows(1.1)
    breaker.succeeded()
    assert breaker.allows(1.1) and breaker.allows(1.1)


def test_without_redis_everything_is_missing_and_at_its_default() -> None:
    layout = Layout(FEATURES)
    ids = np.array([5, 6], np.uint64)
    reading = Reading(layout, query.Query(1, ids, 10**15), NearCache(layout, 2, 1.0), 0)
    reading.nothing()
    response = GetFeaturesResponse.FromString(reading.build().data)
    rows = np.frombuffer(response.item_features, "<f4").reshape(2, FEATURES.item_width)
    assert [list(row) for row in rows] == [FEATURES.item_defaults.tolist()] * 2
    assert response.missing_items == b"\x01\x01" and response.missing_user
    assert response.schema_hash == FEATURES.schema_hash
    assert set(response.view_age_s) == {-1}


def test_the_description_has_every_column_in_order() -> None:
    described = catalogue.describe(FEATURES)
    assert [c.name for c in described.item_columns] == [c.name for c in FEATURES.candidate_columns]
    assert [c.name for c in described.user_columns] == [c.name for c in FEATURES.request_columns]
    assert all(c.kind and c.entity and c.description for c in described.user_columns)


def test_a_near_cache_holds_a_request_or_nothing() -> None:
    with pytest.raises(ValidationError, match="10000"):
        FeatureSettings(near_items=9_999)
    assert FeatureSettings(near_items=0).near_items == 0
