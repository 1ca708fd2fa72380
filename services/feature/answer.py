"""From what Redis holds to the packed answer. Pure."""

from __future__ import annotations

import math

import numpy as np

from rec.v1.feature_pb2 import (
    DescribeFeaturesResponse,
    FeatureColumn,
    GetFeaturesResponse,
    ListFeatureViewsResponse,
)
from services.contract import features
from services.contract.columns import F32, U8, encode
from services.contract.times import MICROS
from services.contract.view_codec import canonical
from services.contract.view_plan import NONE_US, plan_of
from services.contract.view_registry import FeatureSet
from services.feature.evaluate import evaluate
from services.feature.layout import Layout
from services.feature.query import Query
from services.feature.store import Stored


def build(layout: Layout, query: Query, stored: Stored) -> GetFeaturesResponse:
    """The answer without its degradations."""
    made = evaluate(
        layout,
        stored.states,
        stored.items,
        stored.categories,
        item_ids=query.item_ids,
        at_us=query.at_us,
    )
    newest_us = stored.items.newest_us
    ages = np.where(newest_us == NONE_US, np.nan, (query.at_us - newest_us) / MICROS)
    return GetFeaturesResponse(
        schema_hash=layout.feature_set.schema_hash,
        user_features=encode(made.user, F32),
        item_features=encode(made.items, F32),
        missing_items=encode(np.all(stored.items.missing, axis=1).astype(np.uint8), U8),
        missing_user=made.missing_user,
        item_ages_s=encode(ages.astype(np.float32), F32),
        user_age_s=math.nan if made.newest_us == NONE_US else (query.at_us - made.newest_us) / MICROS,
    )


def describe(feature_set: FeatureSet) -> DescribeFeaturesResponse:
    """The named columns and their order."""
    users, items = features.described(feature_set)
    return DescribeFeaturesResponse(
        schema_hash=feature_set.schema_hash,
        user_columns=[_describe(column) for column in users],
        item_columns=[_describe(column) for column in items],
    )


def _describe(column: features.Column) -> FeatureColumn:
    return FeatureColumn(
        name=column.name,
        entity=column.entity,
        kind=column.kind,
        default_value=column.default,
        description=column.description,
    )


def list_views(feature_set: FeatureSet) -> ListFeatureViewsResponse:
    """The definitions in use."""
    answer = ListFeatureViewsResponse(schema_hash=feature_set.schema_hash)
    columns = (*feature_set.request_columns, *feature_set.candidate_columns)
    for view in feature_set.views:
        answer.views.add(
            name=view.name,
            version=view.version,
            kind=view.kind,
            key=view.key,
            columns=[column.name for column in columns if column.view is view],
            state_bytes=0 if view.kind == "instant" else plan_of(view).layout.size,
            owner=view.owner,
            description=view.description,
            definition_hash=view.definition_hash,
            definition=canonical(view),
        )
    return answer
