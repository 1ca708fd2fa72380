"""A feature set that grows while the loop runs: what the topic feature-views says, folded. Pure.

Two kinds of records, in one partition:

| key | value | says | written by |
|---|---|---|---|
| ``<view>.<version>`` | canonical text of a FeatureView | it is folded, and to be back-filled | add-view |
| ``served`` | ``<view>.<version>``, joined by ``+`` | behind the named set's own views these are served, in this order | feature_pipeline, once a view's states are complete |

The list of served views only goes on: a later one begins with the one before. So the sets are the named one
and it with the first n served views: ``world``, ``world+item_dwell.1``, ``world+item_dwell.1+user_dwell.1``.
Each has the columns of the one before in their places, and those of its last view behind them, request
columns and candidate columns alike (projection.py). All of them stay known by their schema hash: models and
samples of each may be about.

A view may be folded without being served: a set has one version of a view (a newer one comes with a new
release of the code, which names it), and MAX_VIEWS views.
"""

# ruff: noqa: E501 - a table row is one line
from __future__ import annotations

from collections.abc import Sequence

from services.contract.errors import Conflict, InvalidInput, NotFound, SchemaMismatch
from services.contract.feature_events import check_routed
from services.contract.feature_view import FeatureView, view_from
from services.contract.model_schema import ModelShape, shape_of
from services.contract.view_registry import FeatureSet, ViewRegistry

# Bits of GetFeaturesResponse.missing_item_views.
MAX_VIEWS = 32
SERVED_KEY = b"served"
JOIN = "+"


def named_set(name: str) -> str:
    """The named set that a set's name begins with: ``world`` of ``world+item_dwell.1``."""
    return name.partition(JOIN)[0]


def key_of(view: FeatureView) -> bytes:
    """Key on feature-views; also how a view is called in the name of a set."""
    return view.full_name.encode()


class GrowingSet:
    """``views``: those added, in the order of the log; ``sets``: by name, each the one before and one view
    more. ``newest_name`` is that of the widest, ``newest`` itself."""

    def __init__(self, name: str, named: FeatureSet) -> None:
        self.views: list[FeatureView] = []
        self.sets: dict[str, FeatureSet] = {}
        self._registry = ViewRegistry(named.views)
        self._served: list[str] = []
        self._names: dict[int, str] = {}
        self._shapes: dict[int, ModelShape] = {}
        self._know(name, named)

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """A record of feature-views; may come again. InvalidInput, Conflict: it has no effect anywhere."""
        try:
            text = (value or b"").decode()
        except UnicodeDecodeError as error:
            raise InvalidInput.one("value", repr(value), "text") from error
        if key == SERVED_KEY:
            self._serve([one for one in text.split(JOIN) if one])
        else:
            self.add(view_from(text))

    def add(self, view: FeatureView) -> bool:
        """False when it is known. Conflict: another definition under an old version. InvalidInput: its events
        do not reach the owners of its entities, or it is instant and needs no fold."""
        check_routed(view)
        if view.kind == "instant":
            raise InvalidInput.one(
                f"{view.name}.kind", view.kind, "batch or streaming: an instant view has no state"
            )
        new = self._registry.register(view)
        if new:
            self.views.append(view)
            self._grow()
        return new

    def _serve(self, names: list[str]) -> None:
        known = self._served
        if names[: len(known)] != known:
            raise Conflict(
                f"served views {JOIN.join(names)[:200]} do not go on from {JOIN.join(known)[:200]}"
            )
        self._served = names
        self._grow()

    def _grow(self) -> None:
        """As far as the served views are known: compaction may leave a list before a view that it names. A
        view that fits no set ends the list before it."""
        by_name = {view.full_name: view for view in self.views}
        while len(self.sets) <= len(self._served):
            name = self._served[len(self.sets) - 1]
            if name not in by_name:
                return
            try:
                wider = self._with(by_name[name])
            except InvalidInput:
                del self._served[len(self.sets) - 1 :]
                raise
            self._know(f"{self.newest_name}{JOIN}{name}", wider)

    def _with(self, view: FeatureView) -> FeatureSet:
        if len(self.newest.views) >= MAX_VIEWS:
            raise InvalidInput.one("views", f"{len(self.newest.views) + 1}", f"at most {MAX_VIEWS} in a set")
        return FeatureSet((*self.newest.views, view))

    def _know(self, name: str, feature_set: FeatureSet) -> None:
        self.sets[name] = feature_set
        self._names[feature_set.schema_hash] = name
        self._shapes[feature_set.schema_hash] = shape_of(feature_set)

    def refusal(self, view: FeatureView) -> str | None:
        """Why a view cannot be served behind the newest set; None when it can."""
        try:
            self._with(view)
        except InvalidInput as error:
            return str(error)
        return None

    def served_with(self, view: FeatureView) -> bytes:
        """The value of the record that says that a view is served from now on."""
        return JOIN.join([*self._served, view.full_name]).encode()

    @property
    def served(self) -> Sequence[str]:
        """The served views, as the log names them."""
        return self._served

    @property
    def newest_name(self) -> str:
        """Of the widest set."""
        return next(reversed(self.sets))

    @property
    def newest(self) -> FeatureSet:
        """The widest set."""
        return self.sets[self.newest_name]

    @property
    def newest_shape(self) -> ModelShape:
        """The shape of models that see all of it."""
        return self._shapes[self.newest.schema_hash]

    def named(self, name: str) -> FeatureSet:
        """NotFound, with the names that there are."""
        found = self.sets.get(name)
        if found is None:
            raise NotFound(f"no feature set {name[:200]!r}; there are {', '.join(self.sets)}")
        return found

    def seen_by(self, shape: ModelShape) -> FeatureSet:
        """The set that a model sees; SchemaMismatch names the columns that are not served."""
        if self.shape(shape.schema_hash) == shape:
            return self.sets[self._names[shape.schema_hash]]
        newest = self.newest_shape
        served = {*newest.user_columns, *newest.item_columns}
        lacks = [one for one in (*shape.user_columns, *shape.item_columns) if one not in served]
        allowed = f"one of {', '.join(self.sets)}" + (f"; not served: {', '.join(lacks)}" if lacks else "")
        raise SchemaMismatch.one("feature_schema_hash", f"{shape.schema_hash:016x}", allowed)

    def shape(self, schema_hash: int) -> ModelShape | None:
        """The shape of models that see the set of this hash; None: none of these sets."""
        return self._shapes.get(schema_hash)

    def name_of(self, schema_hash: int) -> str | None:
        """The set's name."""
        return self._names.get(schema_hash)
