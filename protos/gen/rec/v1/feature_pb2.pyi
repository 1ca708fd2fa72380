import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from rec.v1 import provenance_pb2 as _provenance_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetFeaturesRequest(_message.Message):
    __slots__ = ("request_id", "user_id", "item_ids", "occurred_at")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    user_id: int
    item_ids: bytes
    occurred_at: _timestamp_pb2.Timestamp
    def __init__(self, request_id: _Optional[str] = ..., user_id: _Optional[int] = ..., item_ids: _Optional[bytes] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetFeaturesResponse(_message.Message):
    __slots__ = ("schema_hash", "user_features", "item_features", "missing_items", "missing_user", "degraded", "missing_item_views", "missing_user_views", "view_age_s")
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    USER_FEATURES_FIELD_NUMBER: _ClassVar[int]
    ITEM_FEATURES_FIELD_NUMBER: _ClassVar[int]
    MISSING_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MISSING_USER_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    MISSING_ITEM_VIEWS_FIELD_NUMBER: _ClassVar[int]
    MISSING_USER_VIEWS_FIELD_NUMBER: _ClassVar[int]
    VIEW_AGE_S_FIELD_NUMBER: _ClassVar[int]
    schema_hash: int
    user_features: bytes
    item_features: bytes
    missing_items: bytes
    missing_user: bool
    degraded: _containers.RepeatedCompositeFieldContainer[_provenance_pb2.Degradation]
    missing_item_views: bytes
    missing_user_views: int
    view_age_s: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, schema_hash: _Optional[int] = ..., user_features: _Optional[bytes] = ..., item_features: _Optional[bytes] = ..., missing_items: _Optional[bytes] = ..., missing_user: _Optional[bool] = ..., degraded: _Optional[_Iterable[_Union[_provenance_pb2.Degradation, _Mapping]]] = ..., missing_item_views: _Optional[bytes] = ..., missing_user_views: _Optional[int] = ..., view_age_s: _Optional[_Iterable[float]] = ...) -> None: ...

class DescribeFeaturesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FeatureColumn(_message.Message):
    __slots__ = ("name", "entity", "kind", "default_value", "description")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VALUE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    entity: str
    kind: str
    default_value: float
    description: str
    def __init__(self, name: _Optional[str] = ..., entity: _Optional[str] = ..., kind: _Optional[str] = ..., default_value: _Optional[float] = ..., description: _Optional[str] = ...) -> None: ...

class DescribeFeaturesResponse(_message.Message):
    __slots__ = ("schema_hash", "user_columns", "item_columns")
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    USER_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ITEM_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    schema_hash: int
    user_columns: _containers.RepeatedCompositeFieldContainer[FeatureColumn]
    item_columns: _containers.RepeatedCompositeFieldContainer[FeatureColumn]
    def __init__(self, schema_hash: _Optional[int] = ..., user_columns: _Optional[_Iterable[_Union[FeatureColumn, _Mapping]]] = ..., item_columns: _Optional[_Iterable[_Union[FeatureColumn, _Mapping]]] = ...) -> None: ...

class ListFeatureViewsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FeatureViewInfo(_message.Message):
    __slots__ = ("name", "version", "definition_hash", "kind", "owner", "description", "key", "sources", "hop", "columns", "state_bytes", "definition")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_HASH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    HOP_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    definition_hash: int
    kind: str
    owner: str
    description: str
    key: _containers.RepeatedScalarFieldContainer[str]
    sources: _containers.RepeatedScalarFieldContainer[str]
    hop: _duration_pb2.Duration
    columns: _containers.RepeatedScalarFieldContainer[str]
    state_bytes: int
    definition: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., definition_hash: _Optional[int] = ..., kind: _Optional[str] = ..., owner: _Optional[str] = ..., description: _Optional[str] = ..., key: _Optional[_Iterable[str]] = ..., sources: _Optional[_Iterable[str]] = ..., hop: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., columns: _Optional[_Iterable[str]] = ..., state_bytes: _Optional[int] = ..., definition: _Optional[str] = ...) -> None: ...

class ListFeatureViewsResponse(_message.Message):
    __slots__ = ("feature_set", "schema_hash", "views")
    FEATURE_SET_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    feature_set: str
    schema_hash: int
    views: _containers.RepeatedCompositeFieldContainer[FeatureViewInfo]
    def __init__(self, feature_set: _Optional[str] = ..., schema_hash: _Optional[int] = ..., views: _Optional[_Iterable[_Union[FeatureViewInfo, _Mapping]]] = ...) -> None: ...

class ExplainFeaturesRequest(_message.Message):
    __slots__ = ("user_id", "item_id", "features", "occurred_at")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    user_id: int
    item_id: int
    features: _containers.RepeatedScalarFieldContainer[str]
    occurred_at: _timestamp_pb2.Timestamp
    def __init__(self, user_id: _Optional[int] = ..., item_id: _Optional[int] = ..., features: _Optional[_Iterable[str]] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ExplainedTiles(_message.Message):
    __slots__ = ("aggregate", "to", "tiles", "before")
    AGGREGATE_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    TILES_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    aggregate: str
    to: _timestamp_pb2.Timestamp
    tiles: _containers.RepeatedScalarFieldContainer[int]
    before: int
    def __init__(self, aggregate: _Optional[str] = ..., to: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tiles: _Optional[_Iterable[int]] = ..., before: _Optional[int] = ..., **kwargs) -> None: ...

class ExplainedFeature(_message.Message):
    __slots__ = ("name", "view", "value", "is_default", "entity", "window", "tiles", "recent", "age", "event_ids")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    TILES_FIELD_NUMBER: _ClassVar[int]
    RECENT_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    EVENT_IDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    view: str
    value: float
    is_default: bool
    entity: bytes
    window: _duration_pb2.Duration
    tiles: _containers.RepeatedCompositeFieldContainer[ExplainedTiles]
    recent: _containers.RepeatedCompositeFieldContainer[_timestamp_pb2.Timestamp]
    age: _duration_pb2.Duration
    event_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., view: _Optional[str] = ..., value: _Optional[float] = ..., is_default: _Optional[bool] = ..., entity: _Optional[bytes] = ..., window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., tiles: _Optional[_Iterable[_Union[ExplainedTiles, _Mapping]]] = ..., recent: _Optional[_Iterable[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., event_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ExplainFeaturesResponse(_message.Message):
    __slots__ = ("schema_hash", "features", "event_ids_note")
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    EVENT_IDS_NOTE_FIELD_NUMBER: _ClassVar[int]
    schema_hash: int
    features: _containers.RepeatedCompositeFieldContainer[ExplainedFeature]
    event_ids_note: str
    def __init__(self, schema_hash: _Optional[int] = ..., features: _Optional[_Iterable[_Union[ExplainedFeature, _Mapping]]] = ..., event_ids_note: _Optional[str] = ...) -> None: ...

class FeatureServiceWaitForBarrierRequest(_message.Message):
    __slots__ = ("barrier_id", "timeout")
    BARRIER_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    barrier_id: str
    timeout: _duration_pb2.Duration
    def __init__(self, barrier_id: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class FeatureServiceWaitForBarrierResponse(_message.Message):
    __slots__ = ("passed_at",)
    PASSED_AT_FIELD_NUMBER: _ClassVar[int]
    passed_at: _timestamp_pb2.Timestamp
    def __init__(self, passed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
