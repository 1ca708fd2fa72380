import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HistoryMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HISTORY_MODE_UNSPECIFIED: _ClassVar[HistoryMode]
    HISTORY_MODE_IDEAL: _ClassVar[HistoryMode]
    HISTORY_MODE_AS_SERVED: _ClassVar[HistoryMode]
HISTORY_MODE_UNSPECIFIED: HistoryMode
HISTORY_MODE_IDEAL: HistoryMode
HISTORY_MODE_AS_SERVED: HistoryMode

class GetHistoricalFeaturesRequest(_message.Message):
    __slots__ = ("user_ids", "item_ids", "occurred_us", "served_us", "features", "mode", "lag")
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_US_FIELD_NUMBER: _ClassVar[int]
    SERVED_US_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    user_ids: bytes
    item_ids: bytes
    occurred_us: bytes
    served_us: bytes
    features: _containers.RepeatedScalarFieldContainer[str]
    mode: HistoryMode
    lag: _duration_pb2.Duration
    def __init__(self, user_ids: _Optional[bytes] = ..., item_ids: _Optional[bytes] = ..., occurred_us: _Optional[bytes] = ..., served_us: _Optional[bytes] = ..., features: _Optional[_Iterable[str]] = ..., mode: _Optional[_Union[HistoryMode, str]] = ..., lag: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetHistoricalFeaturesResponse(_message.Message):
    __slots__ = ("first_row", "rows", "columns", "values", "missing", "schema_hash")
    FIRST_ROW_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    first_row: int
    rows: int
    columns: _containers.RepeatedScalarFieldContainer[str]
    values: bytes
    missing: bytes
    schema_hash: int
    def __init__(self, first_row: _Optional[int] = ..., rows: _Optional[int] = ..., columns: _Optional[_Iterable[str]] = ..., values: _Optional[bytes] = ..., missing: _Optional[bytes] = ..., schema_hash: _Optional[int] = ...) -> None: ...

class ExplainHistoricalFeatureRequest(_message.Message):
    __slots__ = ("feature", "user_id", "item_id", "occurred_at", "served_at", "mode", "lag")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    SERVED_AT_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    feature: str
    user_id: int
    item_id: int
    occurred_at: _timestamp_pb2.Timestamp
    served_at: _timestamp_pb2.Timestamp
    mode: HistoryMode
    lag: _duration_pb2.Duration
    def __init__(self, feature: _Optional[str] = ..., user_id: _Optional[int] = ..., item_id: _Optional[int] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., served_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., mode: _Optional[_Union[HistoryMode, str]] = ..., lag: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ExplainingEvent(_message.Message):
    __slots__ = ("kind", "event_id", "origin", "sequence", "occurred_at", "appended_at", "fields")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    APPENDED_AT_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    event_id: str
    origin: str
    sequence: int
    occurred_at: _timestamp_pb2.Timestamp
    appended_at: _timestamp_pb2.Timestamp
    fields: _containers.ScalarMap[str, int]
    def __init__(self, kind: _Optional[str] = ..., event_id: _Optional[str] = ..., origin: _Optional[str] = ..., sequence: _Optional[int] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., appended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., fields: _Optional[_Mapping[str, int]] = ...) -> None: ...

class ExplainHistoricalFeatureResponse(_message.Message):
    __slots__ = ("value", "missing", "default_value", "view", "view_version", "entity", "window_start", "window_end", "events_in_window", "events")
    class EntityEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    VALUE_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VALUE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    VIEW_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    WINDOW_START_FIELD_NUMBER: _ClassVar[int]
    WINDOW_END_FIELD_NUMBER: _ClassVar[int]
    EVENTS_IN_WINDOW_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    value: float
    missing: bool
    default_value: float
    view: str
    view_version: int
    entity: _containers.ScalarMap[str, int]
    window_start: _timestamp_pb2.Timestamp
    window_end: _timestamp_pb2.Timestamp
    events_in_window: int
    events: _containers.RepeatedCompositeFieldContainer[ExplainingEvent]
    def __init__(self, value: _Optional[float] = ..., missing: _Optional[bool] = ..., default_value: _Optional[float] = ..., view: _Optional[str] = ..., view_version: _Optional[int] = ..., entity: _Optional[_Mapping[str, int]] = ..., window_start: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., window_end: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., events_in_window: _Optional[int] = ..., events: _Optional[_Iterable[_Union[ExplainingEvent, _Mapping]]] = ...) -> None: ...
