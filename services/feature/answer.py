"""From what Redis holds to the packed answer. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rec.v1.feature_pb2 import DescribeFeaturesResponse, FeatureColumn, GetFeaturesResponse
from services.contract import features
from services.contract.columns import F32, U8, encode
from services.contract.feature_layout import ITEM_DTYPE, ITEM_VERSION, USER_VERSION
from services.feature.query import Query


@dataclass(frozen=True)
class Stored:
    """What Redis holds for one query.

    user: packed UserState or None; items: [n] ITEM_DTYPE, zeros where there is none; impressions, clicks:
    of the whole run.
    """

    user: bytes | None
    items: NDArray
    impressions: int
    clicks: int


def nothing(query: Query) -> Stored:
    """What is known when Redis cannot be asked."""
    return Stored(None, np.zeros(len(query.item_ids), ITEM_DTYPE), 0, 0)


def build(query: Query, stored: Stored) -> GetFeaturesResponse:
    """The answer without its degradations."""
    users, items = features.user_records(stored.user), stored.items
    user, matrix = features.encode_records(
        users,
        items,
        query.item_ids,
        owner=np.zeros(len(items), np.intp),
        at_us=np.array([query.at_us], np.int64),
        prior=features.prior_rate(stored.impressions, stored.clicks),
    )
    return GetFeaturesResponse(
        schema_hash=features.SCHEMA_HASH,
        user_features=encode(user, F32),
        item_features=encode(matrix, F32),
        missing_items=encode(items["version"] != ITEM_VERSION, U8),
        missing_user=bool(users["version"][0] != USER_VERSION),
    )


def describe() -> DescribeFeaturesResponse:
    """The named columns and their order."""
    return DescribeFeaturesResponse(
        schema_hash=features.SCHEMA_HASH,
        user_columns=[_describe(column) for column in features.USER_COLUMNS],
        item_columns=[_describe(column) for column in features.ITEM_COLUMNS],
    )


def _describe(column: features.Column) -> FeatureColumn:
    return FeatureColumn(
        name=column.name,
        entity=column.entity,
        kind=column.kind,
        default_value=column.default,
        description=column.description,
    )
