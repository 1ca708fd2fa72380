"""The encoding that ranking scores and the joiner carries: the columns of a ``FeatureSet`` as float32.

A request has its request columns once (``user``) and its candidate columns once per candidate (``items``).
They are what packed states say at the request's event time (view_read). The category of a candidate, by
which user x category states are found, is what the candidate's own CATALOGUE state says at that time. A state
that is missing leaves the declared defaults in all columns of its view, and no others.

``encode`` is the reference, one request at a time; the feature server's own way must give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.contract.feature_view import FeatureView
from services.contract.view_plan import plan_of
from services.contract.view_read import read, records_of
from services.contract.view_registry import CATEGORY, REQUEST_KEYS, FeatureSet, ViewColumn
from services.contract.view_values import Values

# Packed states by (name of the view, entity).
States = Mapping[tuple[str, bytes], bytes]


@dataclass(frozen=True)
class Column:
    """One float of the encoding, described. ``entity``: user (also what the moment alone decides), item or
    cross. ``kind``: batch (also what the catalogue says), streaming, instant."""

    name: str
    entity: str
    kind: str
    default: float
    description: str


def described(feature_set: FeatureSet) -> tuple[list[Column], list[Column]]:
    """(request columns, candidate columns), in order."""
    return (
        [_described(feature_set, column) for column in feature_set.request_columns],
        [_described(feature_set, column) for column in feature_set.candidate_columns],
    )


def _described(feature_set: FeatureSet, column: ViewColumn) -> Column:
    view, feature = column.view, column.feature
    entity = "user"
    if column.per_candidate:
        entity = "item" if view.key == ("item_id",) else "cross"
    kind = "batch" if view is feature_set.catalogue else view.kind
    description = f"{view.description}: {feature.description}"
    return Column(column.name, entity, kind, feature.default, description)


@dataclass(frozen=True)
class Encoded:
    """user [user_width], items [n, item_width]; ``missing``: by name of the view, 1 where the state is, of
    [1] the request's entity or [n] the candidates'."""

    user: NDArray[np.float32]
    items: NDArray[np.float32]
    missing: Mapping[str, NDArray[np.uint8]]


def of_request(view: FeatureView) -> bool:
    """Whether a request has one entity of the view, whatever its candidates are."""
    return REQUEST_KEYS.issuperset(view.key)


def entities(view: FeatureView, fields: Mapping[str, NDArray]) -> list[bytes]:
    """The entities of a view that a request reads: one, or one per candidate (with repeats).

    ``fields``: user_id [1], item_id [n], category [n].
    """
    if of_request(view):
        return [b"".join(int(fields[name][0]).to_bytes(8, "little") for name in view.key)]
    rows = max(len(fields[name]) for name in view.key if name not in REQUEST_KEYS)
    columns = [np.broadcast_to(fields[name].astype("<u8"), rows) for name in view.key]
    packed, width = np.stack(columns, axis=1).tobytes(), 8 * len(columns)
    return [packed[start : start + width] for start in range(0, len(packed), width)]


def needed(
    feature_set: FeatureSet, user_id: int, item_ids: NDArray[np.uint64], category: NDArray[np.int64]
) -> list[tuple[FeatureView, bytes]]:
    """Each state that ``encode`` reads, once; ``category`` [n] of the candidates (``categories``)."""
    fields = _fields(user_id, item_ids, category)
    return [
        (view, entity)
        for view in feature_set.views
        if view.kind != "instant"
        for entity in dict.fromkeys(entities(view, fields))
    ]


def categories(feature_set: FeatureSet, values: Sequence[bytes | None], at_us: int) -> NDArray[np.int64]:
    """[n] of the candidates with these CATALOGUE states, 0 = unknown."""
    view = feature_set.catalogue
    found = read(view, records_of(plan_of(view), values), np.full(len(values), at_us, np.int64))
    return category_of(feature_set, found)


def category_of(feature_set: FeatureSet, catalogue: Values) -> NDArray[np.int64]:
    """[n] from what the CATALOGUE view says of n items."""
    index = next(i for i, one in enumerate(feature_set.catalogue.features) if one.name == CATEGORY)
    return catalogue.values[:, index].astype(np.int64)


def encode(
    feature_set: FeatureSet, states: States, user_id: int, item_ids: NDArray[np.uint64], at_us: int
) -> Encoded:
    """One user with n candidates at event time ``at_us``."""
    catalogue = feature_set.catalogue
    own = entities(catalogue, {"item_id": item_ids})
    category = categories(feature_set, [states.get((catalogue.name, entity)) for entity in own], at_us)
    fields = _fields(user_id, item_ids, category)
    # Without a candidate, a view that compares needs one of no meaning to say what it says of the request.
    compared = fields if len(item_ids) else _fields(user_id, np.zeros(1, np.uint64), np.zeros(1, np.int64))
    found: dict[str, Values] = {}
    missing: dict[str, NDArray[np.uint8]] = {}
    for view in feature_set.views:
        wanted = entities(view, fields)
        records = records_of(plan_of(view), [states.get((view.name, entity)) for entity in wanted])
        values = read(view, records, np.full(len(wanted), at_us, np.int64), compared)
        found[view.name] = values
        missing[view.name] = values.missing[:1] if of_request(view) else values.missing
    user = np.array([_values(found, column)[0] for column in feature_set.request_columns], np.float32)
    items = np.empty((len(item_ids), feature_set.item_width), np.float32)
    for place, column in enumerate(feature_set.candidate_columns):
        items[:, place] = _values(found, column)[: len(item_ids)]
    return Encoded(user, items, missing)


def _fields(user_id: int, item_ids: NDArray[np.uint64], category: NDArray[np.int64]) -> dict[str, NDArray]:
    return {"user_id": np.array([user_id], np.uint64), "item_id": item_ids, "category": category}


def _values(found: Mapping[str, Values], column: ViewColumn) -> NDArray[np.float32]:
    return found[column.view.name].values[:, column.index]
