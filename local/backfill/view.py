"""The view that joins: what a user has been shown lately, beside the candidate.

Chosen because the simulated world has a cause that no default view sees: people tire of what they have just
seen (loadgen/world.py, FATIGUE: of an item among the last thirty shown). Whether a model learns it from the
columns is measured, not assumed.
"""

from __future__ import annotations

from services.contract.feature_view import FeatureView
from services.contract.view_aggregates import Feature, LastK, Ratio
from services.contract.views_world import CLICKED, MINUTE_US, PRIOR, SHOWN

_FIELDS = ("item_id", "category")
# As many as the view's state keeps; three lists of ten.
LATELY = 30


def _share(field: str) -> LastK:
    return LastK(SHOWN, _FIELDS, LATELY, "share_of", field)


USER_LATELY = FeatureView(
    "user_lately",
    1,
    ("user_id",),
    ("shown", "acted"),
    (
        # A tenth of the list, three times the same item, is 1.
        Feature("seen", _share("item_id"), divide=0.1, description="the candidate among the last 30 shown"),
        Feature("seen_category", _share("category"), description="its category among the last 30 shown"),
        Feature("ctr_5m", Ratio(SHOWN, CLICKED, PRIOR, 8.0, "lift"), 5 * MINUTE_US, description="click rate"),
    ),
    MINUTE_US,
    owner="recloop",
    description="what a user has been shown lately",
)
