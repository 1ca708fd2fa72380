"""The feature sets that processes can be told to use by name (setting ``feature_set``)."""

from __future__ import annotations

from services.contract.errors import NotFound
from services.contract.view_registry import FeatureSet
from services.contract.views_movielens import MOVIELENS_VIEWS
from services.contract.views_world import WORLD_VIEWS

WORLD = "world"
MOVIELENS = "movielens"
FEATURE_SETS: dict[str, FeatureSet] = {
    WORLD: FeatureSet(WORLD_VIEWS),
    MOVIELENS: FeatureSet(MOVIELENS_VIEWS),
}


def feature_set(name: str) -> FeatureSet:
    """NotFound, with the names that there are."""
    found = FEATURE_SETS.get(name)
    if found is None:
        raise NotFound(f"no feature set {name!r}; there are {', '.join(FEATURE_SETS)}")
    return found
