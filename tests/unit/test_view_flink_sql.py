"""A view as Flink SQL: what can be said, and what is refused. That it is equal to the replay: tests/flink."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.contract.errors import InvalidInput
from services.contract.feature_view import FeatureView
from services.contract.view_aggregates import Count, Feature, Ratio
from services.contract.view_events import Condition, Select
from services.contract.view_flink_sql import flink_sql
from services.contract.views_world import CLICKED, MINUTE_US, SHOWN, WORLD_VIEWS

CTR = FeatureView(
    "item_ctr",
    1,
    ("item_id",),
    ("shown", "acted"),
    (
        Feature("ctr_1m", Ratio(SHOWN, CLICKED, 0.1, 8.0), MINUTE_US),
        Feature("shown_10m", Count(SHOWN), 10 * MINUTE_US, divide=3.0, limit=None),
    ),
    MINUTE_US,
    (Condition("category", "in", (1, 2)),),
)


def test_a_view_becomes_one_hopping_aggregation():
    sql = flink_sql(CTR)
    assert "DESCRIPTOR(ts), INTERVAL '0 00:01:00.000'" in sql
    assert "SELECT 'acted' AS kind, item_id, category, action, ts FROM acted WHERE category IN (1, 2)" in sql
    assert "CAST(NULL AS BIGINT) AS action, ts FROM shown WHERE" in sql
    assert sql.count("window_end - INTERVAL '0 00:01:00.000'") == 3
    assert sql.endswith("GROUP BY item_id, window_start, window_end")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"key": ()}, "key"),
        ({"features": (Feature("n", Count(SHOWN)),)}, "features.n.window_us"),
        ({"features": (Feature("n", Count(SHOWN), MINUTE_US, scale="log1p"),)}, "features.n.scale"),
        (
            {"features": (Feature("n", Ratio(SHOWN, CLICKED, 0.1, 8.0, "lift"), MINUTE_US),)},
            "features.n=Ratio",
        ),
        ({"hop_us": 1_500, "features": (Feature("n", Count(Select("shown")), 3_000),)}, "hop_us"),
    ],
)
def test_what_sql_cannot_say_exactly_is_refused(change, said):
    with pytest.raises(InvalidInput, match=said.replace(".", r"\.")):
        flink_sql(replace(CTR, **change))


def test_every_contradiction_is_named_at_once():
    with pytest.raises(InvalidInput) as refused:
        flink_sql(next(view for view in WORLD_VIEWS if view.name == "user_clicks"))
    assert len(refused.value.violations) > 4
