"""How the views of a feature set are read for a request, and where their columns go. Pure.

| key of a view | states of a request | who keeps them |
|---|---|---|
| item_id | one per candidate | ItemTable |
| user_id | one | nobody: a user comes once in a while |
| category, user_id + category | one per category among the candidates | nobody |
| () of an instant view | none | |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.contract import redis_keys
from services.contract.errors import FieldViolation, InvalidInput
from services.contract.feature_view import FeatureView
from services.contract.view_plan import Plan, plan_of
from services.contract.view_registry import FeatureSet, ViewColumn
from services.contract.view_values import moves

ITEM_KEY = ("item_id",)
USER_KEY = ("user_id",)
CATEGORY_KEYS = (("category",), ("user_id", "category"))


@dataclass(frozen=True)
class Placed:
    """A view with the places of its columns: ``own`` and ``at`` say which of its features stand in which
    columns of the request (request) or of a candidate."""

    view: FeatureView
    plan: Plan
    prefix: bytes
    request_own: NDArray[np.intp]
    request_at: NDArray[np.intp]
    own: NDArray[np.intp]
    at: NDArray[np.intp]

    @property
    def moving(self) -> list[tuple[int, int]]:
        """(feature, column) of the candidate's features that move with t itself."""
        features = self.view.features
        return [
            (own, at)
            for own, at in zip(self.own.tolist(), self.at.tolist(), strict=True)
            if moves(features[own])
        ]


class Layout:
    """InvalidInput names a view whose key no request can give."""

    def __init__(self, feature_set: FeatureSet) -> None:
        self.feature_set = feature_set
        self.items = self._placed(lambda view: view.key == ITEM_KEY)
        self.users = self._placed(lambda view: view.key == USER_KEY)
        self.categories = self._placed(lambda view: view.key in CATEGORY_KEYS)
        self.instants = self._placed(lambda view: view.kind == "instant")
        known = {
            one.view for group in (self.items, self.users, self.categories, self.instants) for one in group
        }
        allowed = "item_id, user_id, category, user_id + category"
        bad = [
            FieldViolation(f"{view.name}.key", " + ".join(view.key) or "()", allowed)
            for view in feature_set.views
            if view not in known
        ]
        if bad:
            raise InvalidInput(bad)

    def _placed(self, belongs: Callable[[FeatureView], bool]) -> tuple[Placed, ...]:
        return tuple(self._place(view) for view in self.feature_set.views if belongs(view))

    def _place(self, view: FeatureView) -> Placed:
        request_own, request_at = _places(self.feature_set.request_columns, view)
        own, at = _places(self.feature_set.candidate_columns, view)
        prefix = b"" if view.kind == "instant" else redis_keys.view_prefix(view)
        return Placed(view, plan_of(view), prefix, request_own, request_at, own, at)


def _places(columns: Sequence[ViewColumn], view: FeatureView) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    found = [(column.index, at) for at, column in enumerate(columns) if column.view is view]
    own = np.array([index for index, _ in found], np.intp)
    return own, np.array([at for _, at in found], np.intp)
