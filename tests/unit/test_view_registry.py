"""Versions do not change their meaning; columns and schema hash follow from the definitions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.contract.errors import Conflict, InvalidInput, NotFound
from services.contract.feature_view import FeatureView, view_from
from services.contract.view_codec import canonical
from services.contract.view_plan import plan_of
from services.contract.view_registry import FeatureSet, ViewRegistry
from services.contract.views_movielens import MOVIELENS_VIEWS
from services.contract.views_world import MINUTE_US, WORLD_VIEWS

ACTIVITY = next(view for view in WORLD_VIEWS if view.name == "item_activity")


def longer(view: FeatureView, version: int) -> FeatureView:
    features = (*view.features[:-1], replace(view.features[-1], window_us=20 * MINUTE_US))
    return replace(view, features=features, version=version)


def test_a_changed_definition_needs_a_new_version():
    registry = ViewRegistry(WORLD_VIEWS)
    with pytest.raises(Conflict, match=r"item_activity: version 1 is .* needs version 2"):
        registry.register(longer(ACTIVITY, 1))
    assert registry.register(longer(ACTIVITY, 2))
    assert registry.get("item_activity").version == 2
    assert registry.get("item_activity", 1) == ACTIVITY
    with pytest.raises(Conflict, match="version 1 is"):
        registry.register(longer(ACTIVITY, 1))
    assert registry.register(replace(longer(ACTIVITY, 4), name="item_activity"))
    with pytest.raises(Conflict, match="version 3 is older than 4"):
        registry.register(longer(ACTIVITY, 3))


def test_the_same_again_and_new_notes_are_fine():
    registry = ViewRegistry([ACTIVITY])
    assert not registry.register(ACTIVITY)
    noted = replace(
        ACTIVITY,
        owner="somebody",
        description="the same",
        features=tuple(replace(feature, description="words") for feature in ACTIVITY.features),
    )
    assert noted.definition_hash == ACTIVITY.definition_hash
    assert not registry.register(noted)
    assert registry.get("item_activity").owner == "somebody"


def test_an_unknown_view_version_or_feature_is_not_found():
    registry = ViewRegistry([ACTIVITY])
    for missing in (("nobody", None), ("item_activity", 7)):
        with pytest.raises(NotFound):
            registry.get(*missing)
    with pytest.raises(NotFound, match="no feature 'item_age'"):
        FeatureSet([ACTIVITY]).column("item_age")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"name": "other"},
        {"hop_us": 2 * MINUTE_US, "features": ACTIVITY.features[:3]},
        {"slack_hops": 3},
        {"kind": "batch"},
        {"features": (replace(ACTIVITY.features[0], default=0.5), *ACTIVITY.features[1:])},
        {"features": (replace(ACTIVITY.features[0], limit=None), *ACTIVITY.features[1:])},
        {"features": ACTIVITY.features[::-1]},
    ],
)
def test_whatever_decides_a_value_decides_the_hash(change):
    assert replace(ACTIVITY, **change).definition_hash != ACTIVITY.definition_hash


def test_the_schema_is_the_definitions_in_their_order():
    schema = FeatureSet(WORLD_VIEWS).schema_hash
    assert FeatureSet(WORLD_VIEWS).schema_hash == schema
    assert FeatureSet(WORLD_VIEWS[::-1]).schema_hash != schema
    newer = [longer(view, 2) if view is ACTIVITY else view for view in WORLD_VIEWS]
    assert FeatureSet(newer).schema_hash != schema


def test_a_set_has_each_view_and_each_column_once():
    with pytest.raises(InvalidInput, match="view=item_activity: once in a set"):
        FeatureSet([ACTIVITY, longer(ACTIVITY, 2)])
    with pytest.raises(InvalidInput, match="views=none"):
        FeatureSet([])
    clash = replace(ACTIVITY, name="item", features=(replace(ACTIVITY.features[0], name="activity_ctr"),))
    with pytest.raises(InvalidInput, match="column=item_activity_ctr"):
        FeatureSet([ACTIVITY, clash])


@pytest.mark.parametrize("views", [WORLD_VIEWS, MOVIELENS_VIEWS], ids=["world", "movielens"])
def test_the_default_views_fit_together(views):
    chosen = FeatureSet(views)
    columns = (*chosen.request_columns, *chosen.candidate_columns)
    assert len({column.name for column in columns}) == sum(len(view.features) for view in views)
    assert {column.name for column in chosen.request_columns} >= {
        "user_activity_ctr",
        "user_clicks_any",
        "time_day_sin",
    }
    assert {column.name for column in chosen.candidate_columns} >= {
        "item_catalogue_category",
        "item_catalogue_age",
        "item_activity_ctr",
        "item_popularity_clicks_decayed",
        "user_clicks_clicked_before",
        "user_category_ctr",
    }
    assert all(column.feature.description and column.view.owner for column in columns)
    # What the model must know: all but the category id stay within [-3, 3].
    assert [c.name for c in columns if c.feature.limit is None] == ["item_catalogue_category"]
    for view in views:
        assert view_from(canonical(view)) == view
        assert plan_of(view).layout.size <= 400
