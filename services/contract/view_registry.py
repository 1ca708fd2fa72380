"""Which views there are, and which columns a model sees.

A version never changes its meaning: another definition under a version that is known, or under a lower one,
is refused. Old versions stay, so that models trained on either are served.

A ``FeatureSet`` is an ordered choice of views, one version each. Its columns, their order and the schema hash
follow from the definitions alone. Columns that depend on the user and the moment only stand once per request;
the others, which look at the candidate (by key, or by a comparison), once per candidate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xxhash
from numpy.typing import NDArray

from services.contract.errors import Conflict, FieldViolation, InvalidInput, NotFound
from services.contract.feature_view import FeatureView
from services.contract.view_aggregates import MATCHING_READS, Feature, LastK

# Key fields that a request has before it has candidates.
REQUEST_KEYS = frozenset({"user_id"})
# The view of what the catalogue says of an item, and its feature that the model looks up in a table.
CATALOGUE = "item_catalogue"
CATEGORY = "category"
CATEGORY_COLUMN = f"{CATALOGUE}_{CATEGORY}"


@dataclass(frozen=True)
class ViewColumn:
    """One float32 of the encoding: feature ``index`` of a view."""

    name: str
    view: FeatureView
    index: int

    @property
    def feature(self) -> Feature:
        """Its definition."""
        return self.view.features[self.index]

    @property
    def per_candidate(self) -> bool:
        """Whether it differs between the candidates of a request."""
        aggregate = self.feature.aggregate
        compares = isinstance(aggregate, LastK) and aggregate.read in MATCHING_READS
        return compares or not REQUEST_KEYS.issuperset(self.view.key)


class FeatureSet:
    """``request_columns`` and ``candidate_columns``: in the order of the views and their features.

    InvalidInput: no view, a view twice, two columns of one name.
    """

    def __init__(self, views: Iterable[FeatureView]) -> None:
        self.views = tuple(views)
        columns = [
            ViewColumn(f"{view.name}_{feature.name}", view, index)
            for view in self.views
            for index, feature in enumerate(view.features)
        ]
        counts = Counter(view.name for view in self.views), Counter(column.name for column in columns)
        bad = [
            FieldViolation(what, name, "once in a set")
            for what, count in zip(("view", "column"), counts, strict=True)
            for name, times in count.items()
            if times > 1
        ]
        if not self.views:
            bad.append(FieldViolation("views", "none", "at least one"))
        if bad:
            raise InvalidInput(bad)
        self.request_columns = tuple(column for column in columns if not column.per_candidate)
        self.candidate_columns = tuple(column for column in columns if column.per_candidate)

    @cached_property
    def schema_hash(self) -> int:
        """xxh64 of the definitions in order."""
        text = "\n".join(f"{v.name}@{v.version}:{v.definition_hash:016x}" for v in self.views)
        return xxhash.xxh64_intdigest(text.encode(), seed=0)

    @property
    def user_width(self) -> int:
        """Floats per request."""
        return len(self.request_columns)

    @property
    def item_width(self) -> int:
        """Floats per candidate."""
        return len(self.candidate_columns)

    @cached_property
    def user_defaults(self) -> NDArray[np.float32]:
        """[user_width]: what a request has of which nothing is known."""
        return _defaults(self.request_columns)

    @cached_property
    def item_defaults(self) -> NDArray[np.float32]:
        """[item_width]."""
        return _defaults(self.candidate_columns)

    @cached_property
    def catalogue(self) -> FeatureView:
        """InvalidInput when the set has no CATALOGUE with a CATEGORY: no model without."""
        for column in self.candidate_columns:
            if (column.view.name, column.feature.name) == (CATALOGUE, CATEGORY):
                return column.view
        names = ", ".join(view.name for view in self.views)
        raise InvalidInput.one("views", names, f"with {CATALOGUE}, which says {CATEGORY}")

    @cached_property
    def category_column(self) -> int:
        """Index of the candidate column that holds the category, an exact small integer, 0 = unknown."""
        names = [(column.view.name, column.feature.name) for column in self.candidate_columns]
        return names.index((self.catalogue.name, CATEGORY))

    @cached_property
    def batch(self) -> list[int]:
        """Indices of the candidate columns that the catalogue alone decides."""
        return [i for i, column in enumerate(self.candidate_columns) if column.view is self.catalogue]

    @cached_property
    def not_batch(self) -> list[int]:
        """Indices of the other candidate columns."""
        return [i for i, column in enumerate(self.candidate_columns) if column.view is not self.catalogue]

    def column(self, name: str) -> ViewColumn:
        """NotFound when the set has none of that name."""
        for column in (*self.request_columns, *self.candidate_columns):
            if column.name == name:
                return column
        raise NotFound(f"no feature {name!r}; there are {len(self.request_columns + self.candidate_columns)}")


def _defaults(columns: tuple[ViewColumn, ...]) -> NDArray[np.float32]:
    values = np.array([column.feature.default for column in columns], np.float32)
    values.flags.writeable = False
    return values


class ViewRegistry:
    """All versions of all views."""

    def __init__(self, views: Iterable[FeatureView] = ()) -> None:
        self._views: dict[str, dict[int, FeatureView]] = {}
        for view in views:
            self.register(view)

    def register(self, view: FeatureView) -> bool:
        """True when it is new. Notes may change. Conflict: another definition under an old version."""
        versions = self._views.setdefault(view.name, {})
        known = versions.get(view.version)
        if known is None and versions and view.version < max(versions):
            raise Conflict(
                f"{view.name}: version {view.version} is older than {max(versions)}, which is known"
            )
        if known is not None and known.definition_hash != view.definition_hash:
            raise Conflict(
                f"{view.name}: version {view.version} is {known.definition_hash:016x}, "
                f"not {view.definition_hash:016x}; a changed definition needs version {max(versions) + 1}"
            )
        versions[view.version] = view
        return known is None

    def get(self, name: str, version: int | None = None) -> FeatureView:
        """A version of a view, the newest by default; NotFound."""
        versions = self._views.get(name)
        if not versions or (version is not None and version not in versions):
            raise NotFound(f"no view {name!r}" + ("" if version is None else f" version {version}"))
        return versions[max(versions) if version is None else version]

    def all(self) -> list[FeatureView]:
        """Every version, by name and version."""
        return [
            self._views[name][version]
            for name in sorted(self._views)
            for version in sorted(self._views[name])
        ]
