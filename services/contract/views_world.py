"""The default views of the simulated world: minutes, because its trends live for minutes.

Rates are lifts over PRIOR, the click rate that the world is built around; counts are log1p / what keeps them
within [0, 3].
"""

from __future__ import annotations

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK
from services.contract.feature_view import FeatureView
from services.contract.view_aggregates import (
    Count,
    Decayed,
    Distinct,
    Elapsed,
    Feature,
    Instant,
    LastK,
    Mean,
    Ratio,
)
from services.contract.view_events import Condition, Select

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
PRIOR = 0.1
OWNER = "recloop"

SHOWN = Select("shown")
CLICKED = Select("acted", (Condition("action", "eq", ACTION_KIND_CLICK),))


def activity(
    name: str,
    key: str,
    hop_us: int,
    windows: tuple[tuple[str, int], ...],
    prior: float = PRIOR,
) -> FeatureView:
    """Click rate and counts of an entity: of all time and in windows (suffix, length)."""
    features = [
        Feature("ctr", Ratio(SHOWN, CLICKED, prior, 8.0, "lift"), description="click rate"),
        Feature("shown", Count(SHOWN), scale="log1p", divide=4.0, description="impressions"),
        Feature("clicks", Count(CLICKED), scale="log1p", divide=4.0, description="clicks"),
    ]
    for suffix, window_us in windows:
        rate = Ratio(SHOWN, CLICKED, prior, 8.0, "lift")
        features.append(Feature(f"ctr_{suffix}", rate, window_us, description=f"click rate, {suffix}"))
        features.append(
            Feature(
                f"shown_{suffix}", Count(SHOWN), window_us, 0.0, "log1p", 3.0, description=f"shown, {suffix}"
            )
        )
    return FeatureView(
        name,
        1,
        (key,),
        ("shown", "acted"),
        tuple(features),
        hop_us,
        owner=OWNER,
        description="how often it is shown and clicked",
    )


def _elapsed(name: str, which: str, description: str) -> Feature:
    return Feature(name, Elapsed(SHOWN, which), scale="log1p", divide=5.0, description=description)


def recent_clicks(hop_us: int) -> FeatureView:
    """The last ten clicks of a user, and the candidate beside them."""
    fields = ("item_id", "category")

    def last(read: str, field: str = "") -> LastK:
        return LastK(CLICKED, fields, 10, read, field)

    return FeatureView(
        "user_clicks",
        1,
        ("user_id",),
        ("acted",),
        (
            Feature("any", last("any"), description="1 when a click is known"),
            Feature(
                "seconds", last("seconds"), scale="log1p", divide=5.0, description="since the last click"
            ),
            Feature(
                "category_share", last("share_of", "category"), description="of the candidate's category"
            ),
            Feature("same_category", last("newest_is", "category"), description="as the last click's"),
            Feature("clicked_before", last("contains", "item_id"), description="the candidate itself"),
        ),
        hop_us,
        owner=OWNER,
        description="a user's last ten clicks",
    )


def catalogue(hop_us: int) -> FeatureView:
    """Category (an exact small integer: the model looks it up) and age of an item."""
    listed = Select("listed")
    fields = ("category", "created_at")
    return FeatureView(
        "item_catalogue",
        1,
        ("item_id",),
        ("listed",),
        (
            Feature(
                "category",
                LastK(listed, fields, 1, "value", "category"),
                limit=None,
                description="id, 0 = unknown",
            ),
            Feature(
                "age",
                LastK(listed, fields, 1, "value_age", "created_at"),
                scale="log1p",
                divide=5.0,
                description="seconds since the item's birth",
            ),
        ),
        hop_us,
        owner=OWNER,
        description="what the catalogue says of an item",
    )


def user_category(hop_us: int, half_life_us: int, window_us: int, prior: float = PRIOR) -> FeatureView:
    """How a user takes to a category."""
    return FeatureView(
        "user_category",
        1,
        ("user_id", "category"),
        ("shown", "acted"),
        (
            Feature("ctr", Ratio(SHOWN, CLICKED, prior, 5.0, "lift"), description="click rate"),
            Feature("shown", Count(SHOWN), scale="log1p", divide=3.0, description="impressions"),
            Feature(
                "clicks_decayed",
                Decayed(CLICKED, half_life_us),
                window_us,
                scale="log1p",
                divide=3.0,
                description="clicks, newer ones weigh more",
            ),
        ),
        hop_us,
        owner=OWNER,
        description="a user's affinity to a category",
    )


def user_history(hop_us: int) -> FeatureView:
    """How long a user has been there, and how wide the interests are."""
    return FeatureView(
        "user_history",
        1,
        ("user_id",),
        ("shown", "acted"),
        (
            _elapsed("tenure", "first", "seconds since the first impression"),
            _elapsed("away", "last", "seconds since the last impression"),
            Feature(
                "categories",
                Distinct(CLICKED, "category", 6),
                scale="log1p",
                divide=2.0,
                description="clicked",
            ),
            Feature(
                "dwell",
                Mean(CLICKED, "dwell_s"),
                scale="log1p",
                divide=3.0,
                description="mean seconds of a click",
            ),
        ),
        hop_us,
        owner=OWNER,
        description="a user since the first event",
    )


def popularity(hop_us: int, half_life_us: int, window_us: int) -> FeatureView:
    """Clicks of an item, newer ones weigh more."""
    return FeatureView(
        "item_popularity",
        1,
        ("item_id",),
        ("acted",),
        (
            Feature(
                "clicks_decayed",
                Decayed(CLICKED, half_life_us),
                window_us,
                scale="log1p",
                divide=4.0,
                description="clicks, newer ones weigh more",
            ),
        ),
        hop_us,
        owner=OWNER,
        description="popularity of an item",
    )


TIME_OF_DAY = FeatureView(
    "time",
    1,
    (),
    (),
    (
        Feature("day_sin", Instant("day_sin"), description="sine of the UTC time of day"),
        Feature("day_cos", Instant("day_cos"), default=1.0, description="cosine of the UTC time of day"),
    ),
    0,
    kind="instant",
    owner=OWNER,
    description="the moment of the request",
)
_WINDOWS = (("1m", MINUTE_US), ("10m", 10 * MINUTE_US))

WORLD_VIEWS: tuple[FeatureView, ...] = (
    activity("user_activity", "user_id", MINUTE_US, _WINDOWS),
    user_history(MINUTE_US),
    recent_clicks(MINUTE_US),
    TIME_OF_DAY,
    catalogue(MINUTE_US),
    activity("item_activity", "item_id", MINUTE_US, _WINDOWS),
    popularity(10 * MINUTE_US, HOUR_US, 6 * HOUR_US),
    user_category(10 * MINUTE_US, 30 * MINUTE_US, 2 * HOUR_US),
)
