"""The items that a user clicked last, as the state of the view LAST_CLICKS holds them."""

from __future__ import annotations

import numpy as np

from services.contract.errors import InvalidInput
from services.contract.feature_view import FeatureView
from services.contract.view_plan import NONE_US, Plan, plan_of
from services.contract.view_registry import FeatureSet

LAST_CLICKS = "user_clicks"


def last_clicks_view(feature_set: FeatureSet) -> FeatureView:
    """InvalidInput when the set has no view LAST_CLICKS of users that keeps items."""
    for view in feature_set.views:
        if view.name == LAST_CLICKS and view.key == ("user_id",) and _recent(plan_of(view)) is not None:
            return view
    names = ", ".join(view.name for view in feature_set.views)
    raise InvalidInput.one("views", names, f"with {LAST_CLICKS}, which keeps the item_id of a user's clicks")


def last_clicked_items(view: FeatureView, value: bytes | None) -> list[int]:
    """Item ids of the last clicks, newest first, with repeats; none without a state of the view."""
    plan = plan_of(view)
    recent = _recent(plan)
    if value is None or recent is None or not plan.readable(value):
        return []
    record = np.frombuffer(value, plan.dtype)
    filled = record[f"recent{recent}_us"] != NONE_US
    items: list[int] = record[f"recent{recent}_item_id"][filled].tolist()
    return items


def _recent(plan: Plan) -> int | None:
    for index, recent in enumerate(plan.recents):
        if "item_id" in recent.fields:
            return index
    return None
