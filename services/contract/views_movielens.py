"""The default views of MovieLens: hours and days, because a rating log of years has sessions and seasons."""

from __future__ import annotations

from services.contract.feature_view import FeatureView
from services.contract.view_aggregates import Count, Feature
from services.contract.views_world import (
    CLICKED,
    DAY_US,
    HOUR_US,
    MINUTE_US,
    OWNER,
    TIME_OF_DAY,
    activity,
    catalogue,
    popularity,
    recent_clicks,
    user_category,
    user_history,
)

# Half of all ratings are liked.
PRIOR = 0.5

MOVIELENS_VIEWS: tuple[FeatureView, ...] = (
    activity(
        "user_activity",
        "user_id",
        10 * MINUTE_US,
        (("10m", 10 * MINUTE_US), ("1h", HOUR_US)),
        PRIOR,
    ),
    user_history(10 * MINUTE_US),
    recent_clicks(10 * MINUTE_US),
    TIME_OF_DAY,
    catalogue(HOUR_US),
    activity("item_activity", "item_id", DAY_US, (("1d", DAY_US), ("30d", 30 * DAY_US)), PRIOR),
    popularity(DAY_US, 7 * DAY_US, 30 * DAY_US),
    FeatureView(
        "item_yearly",
        1,
        ("item_id",),
        ("acted",),
        (Feature("clicks", Count(CLICKED), 364 * DAY_US, 0.0, "log1p", 4.0, description="clicks in a year"),),
        7 * DAY_US,
        kind="batch",
        owner=OWNER,
        description="a film over a year, made weekly",
    ),
    user_category(DAY_US, 7 * DAY_US, 28 * DAY_US, PRIOR),
)
