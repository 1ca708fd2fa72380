"""The feature server's rules: what may be asked, when Redis is tried, what the answer says."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from rec.v1.feature_pb2 import GetFeaturesRequest
from services.contract import times
from services.contract.errors import InvalidInput
from services.contract.feature_sets import FEATURE_SETS
from services.contract.feature_view import view_from
from services.feature import answer, query
from services.feature.breaker import Breaker
from services.feature.layout import Layout
from services.feature.settings import FeatureSettings
from services.feature.store import nothing

SET = FEATURE_SETS["world"]


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
    layout = Layout(SET)
    ids = np.array([5, 6], np.uint64)
    asked = query.Query(1, ids, ids.tobytes(), 10**15)
    response = answer.build(layout, asked, nothing(layout, asked))
    assert response.item_features == np.tile(SET.item_defaults, (2, 1)).tobytes()
    assert response.missing_items == b"\x01\x01" and response.missing_user
    assert response.schema_hash == SET.schema_hash
    assert np.isnan(np.frombuffer(response.item_ages_s, "<f4")).all() and np.isnan(response.user_age_s)


def test_the_description_has_every_column_in_order() -> None:
    described = answer.describe(SET)
    assert [c.name for c in described.item_columns] == [c.name for c in SET.candidate_columns]
    assert [c.name for c in described.user_columns] == [c.name for c in SET.request_columns]
    assert all(c.kind and c.entity and c.description for c in described.user_columns)


def test_the_listed_views_are_those_of_the_set_and_their_text_is_their_definition() -> None:
    listed = answer.list_views(SET)
    assert [view_from(view.definition).definition_hash for view in listed.views] == [
        view.definition_hash for view in SET.views
    ]
    named = sorted(name for view in listed.views for name in view.columns)
    assert named == sorted(c.name for c in (*SET.request_columns, *SET.candidate_columns))
    assert all(view.owner and view.description for view in listed.views)


def test_a_near_table_holds_at_least_one_request() -> None:
    with pytest.raises(ValidationError, match="at least 10000"):
        FeatureSettings(near_items=9_999)
    assert FeatureSettings(near_items=0).near_items == 0
