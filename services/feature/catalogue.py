"""The feature set in words: its columns and its views."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from rec.v1.feature_pb2 import (
    DescribeFeaturesResponse,
    FeatureColumn,
    FeatureViewInfo,
    ListFeatureViewsResponse,
)
from services.contract import features
from services.contract.feature_view import FeatureView
from services.contract.view_codec import canonical
from services.contract.view_plan import plan_of
from services.contract.view_registry import FeatureSet


def describe(feature_set: FeatureSet) -> DescribeFeaturesResponse:
    """The named columns and their order."""
    request, candidate = features.described(feature_set)
    return DescribeFeaturesResponse(
        schema_hash=feature_set.schema_hash,
        user_columns=map(_column, request),
        item_columns=map(_column, candidate),
    )


def _column(column: features.Column) -> FeatureColumn:
    return FeatureColumn(
        name=column.name,
        entity=column.entity,
        kind=column.kind,
        default_value=column.default,
        description=column.description,
    )


def list_views(name: str, feature_set: FeatureSet) -> ListFeatureViewsResponse:
    """The views of a set, in its order."""
    return ListFeatureViewsResponse(
        feature_set=name,
        schema_hash=feature_set.schema_hash,
        views=map(_view, feature_set.views),
    )


def _view(view: FeatureView) -> FeatureViewInfo:
    return FeatureViewInfo(
        name=view.name,
        version=view.version,
        definition_hash=view.definition_hash,
        kind=view.kind,
        owner=view.owner,
        description=view.description,
        key=view.key,
        sources=view.sources,
        hop=duration(view.hop_us),
        columns=[f"{view.name}_{feature.name}" for feature in view.features],
        state_bytes=0 if view.kind == "instant" else plan_of(view).layout.size,
        definition=canonical(view),
    )


def duration(us: int) -> Duration:
    """Of microseconds."""
    made = Duration()
    made.FromMicroseconds(us)
    return made
