import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from rec.model.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ActionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_KIND_UNSPECIFIED: _ClassVar[ActionKind]
    ACTION_KIND_CLICK: _ClassVar[ActionKind]
    ACTION_KIND_LIKE: _ClassVar[ActionKind]
    ACTION_KIND_HIDE: _ClassVar[ActionKind]
    ACTION_KIND_PURCHASE: _ClassVar[ActionKind]
ACTION_KIND_UNSPECIFIED: ActionKind
ACTION_KIND_CLICK: ActionKind
ACTION_KIND_LIKE: ActionKind
ACTION_KIND_HIDE: ActionKind
ACTION_KIND_PURCHASE: ActionKind

class EventRecord(_message.Message):
    __slots__ = ("snapshot", "impression", "action", "heartbeat", "barrier")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    IMPRESSION_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    BARRIER_FIELD_NUMBER: _ClassVar[int]
    snapshot: FeatureSnapshot
    impression: Impression
    action: Action
    heartbeat: Heartbeat
    barrier: Barrier
    def __init__(self, snapshot: _Optional[_Union[FeatureSnapshot, _Mapping]] = ..., impression: _Optional[_Union[Impression, _Mapping]] = ..., action: _Optional[_Union[Action, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., barrier: _Optional[_Union[Barrier, _Mapping]] = ...) -> None: ...

class FeatureSnapshot(_message.Message):
    __slots__ = ("event_id", "request_id", "occurred_at", "user_id", "scored_at", "schema_hash", "model", "arm", "item_ids", "scores", "user_features", "item_features", "slim")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SCORED_AT_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    USER_FEATURES_FIELD_NUMBER: _ClassVar[int]
    ITEM_FEATURES_FIELD_NUMBER: _ClassVar[int]
    SLIM_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    request_id: str
    occurred_at: _timestamp_pb2.Timestamp
    user_id: int
    scored_at: _timestamp_pb2.Timestamp
    schema_hash: int
    model: _model_pb2.ModelVersion
    arm: str
    item_ids: bytes
    scores: bytes
    user_features: bytes
    item_features: bytes
    slim: SlimFeatures
    def __init__(self, event_id: _Optional[str] = ..., request_id: _Optional[str] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., user_id: _Optional[int] = ..., scored_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., schema_hash: _Optional[int] = ..., model: _Optional[_Union[_model_pb2.ModelVersion, _Mapping]] = ..., arm: _Optional[str] = ..., item_ids: _Optional[bytes] = ..., scores: _Optional[bytes] = ..., user_features: _Optional[bytes] = ..., item_features: _Optional[bytes] = ..., slim: _Optional[_Union[SlimFeatures, _Mapping]] = ...) -> None: ...

class SlimFeatures(_message.Message):
    __slots__ = ("batch_view", "inline_rows", "inline_features", "item_features_hash")
    BATCH_VIEW_FIELD_NUMBER: _ClassVar[int]
    INLINE_ROWS_FIELD_NUMBER: _ClassVar[int]
    INLINE_FEATURES_FIELD_NUMBER: _ClassVar[int]
    ITEM_FEATURES_HASH_FIELD_NUMBER: _ClassVar[int]
    batch_view: BatchView
    inline_rows: bytes
    inline_features: bytes
    item_features_hash: int
    def __init__(self, batch_view: _Optional[_Union[BatchView, _Mapping]] = ..., inline_rows: _Optional[bytes] = ..., inline_features: _Optional[bytes] = ..., item_features_hash: _Optional[int] = ...) -> None: ...

class BatchView(_message.Message):
    __slots__ = ("view", "version", "partition")
    VIEW_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    view: str
    version: int
    partition: int
    def __init__(self, view: _Optional[str] = ..., version: _Optional[int] = ..., partition: _Optional[int] = ...) -> None: ...

class Impression(_message.Message):
    __slots__ = ("event_id", "request_id", "occurred_at", "user_id", "item_ids", "positions", "unscored")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    UNSCORED_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    request_id: str
    occurred_at: _timestamp_pb2.Timestamp
    user_id: int
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    positions: _containers.RepeatedScalarFieldContainer[int]
    unscored: bool
    def __init__(self, event_id: _Optional[str] = ..., request_id: _Optional[str] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., user_id: _Optional[int] = ..., item_ids: _Optional[_Iterable[int]] = ..., positions: _Optional[_Iterable[int]] = ..., unscored: _Optional[bool] = ...) -> None: ...

class Action(_message.Message):
    __slots__ = ("event_id", "request_id", "occurred_at", "user_id", "item_id", "kind", "dwell")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DWELL_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    request_id: str
    occurred_at: _timestamp_pb2.Timestamp
    user_id: int
    item_id: int
    kind: ActionKind
    dwell: _duration_pb2.Duration
    def __init__(self, event_id: _Optional[str] = ..., request_id: _Optional[str] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., user_id: _Optional[int] = ..., item_id: _Optional[int] = ..., kind: _Optional[_Union[ActionKind, str]] = ..., dwell: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("writer", "occurred_at")
    WRITER_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    writer: str
    occurred_at: _timestamp_pb2.Timestamp
    def __init__(self, writer: _Optional[str] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Barrier(_message.Message):
    __slots__ = ("barrier_id", "occurred_at")
    BARRIER_ID_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    barrier_id: str
    occurred_at: _timestamp_pb2.Timestamp
    def __init__(self, barrier_id: _Optional[str] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SampleRecord(_message.Message):
    __slots__ = ("sample", "barrier")
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    BARRIER_FIELD_NUMBER: _ClassVar[int]
    sample: TrainingSample
    barrier: Barrier
    def __init__(self, sample: _Optional[_Union[TrainingSample, _Mapping]] = ..., barrier: _Optional[_Union[Barrier, _Mapping]] = ...) -> None: ...

class TrainingSample(_message.Message):
    __slots__ = ("request_id", "occurred_at", "user_id", "schema_hash", "model", "arm", "item_ids", "labels", "label_versions", "positions", "scores", "item_features", "user_features", "sample_rate", "impressed_at", "acted_at", "scored_at", "joined_at")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LABEL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    ITEM_FEATURES_FIELD_NUMBER: _ClassVar[int]
    USER_FEATURES_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_FIELD_NUMBER: _ClassVar[int]
    IMPRESSED_AT_FIELD_NUMBER: _ClassVar[int]
    ACTED_AT_FIELD_NUMBER: _ClassVar[int]
    SCORED_AT_FIELD_NUMBER: _ClassVar[int]
    JOINED_AT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    occurred_at: _timestamp_pb2.Timestamp
    user_id: int
    schema_hash: int
    model: _model_pb2.ModelVersion
    arm: str
    item_ids: bytes
    labels: bytes
    label_versions: bytes
    positions: bytes
    scores: bytes
    item_features: bytes
    user_features: bytes
    sample_rate: float
    impressed_at: _timestamp_pb2.Timestamp
    acted_at: _timestamp_pb2.Timestamp
    scored_at: _timestamp_pb2.Timestamp
    joined_at: _timestamp_pb2.Timestamp
    def __init__(self, request_id: _Optional[str] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., user_id: _Optional[int] = ..., schema_hash: _Optional[int] = ..., model: _Optional[_Union[_model_pb2.ModelVersion, _Mapping]] = ..., arm: _Optional[str] = ..., item_ids: _Optional[bytes] = ..., labels: _Optional[bytes] = ..., label_versions: _Optional[bytes] = ..., positions: _Optional[bytes] = ..., scores: _Optional[bytes] = ..., item_features: _Optional[bytes] = ..., user_features: _Optional[bytes] = ..., sample_rate: _Optional[float] = ..., impressed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., acted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., scored_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., joined_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class FeatureEventBatch(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[FeatureEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[FeatureEvent, _Mapping]]] = ...) -> None: ...

class FeatureEvent(_message.Message):
    __slots__ = ("event_hash", "occurred_us", "origin_topic", "origin_partition", "origin_offset", "shown", "acted", "listed", "barrier")
    EVENT_HASH_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_US_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_TOPIC_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_PARTITION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_OFFSET_FIELD_NUMBER: _ClassVar[int]
    SHOWN_FIELD_NUMBER: _ClassVar[int]
    ACTED_FIELD_NUMBER: _ClassVar[int]
    LISTED_FIELD_NUMBER: _ClassVar[int]
    BARRIER_FIELD_NUMBER: _ClassVar[int]
    event_hash: int
    occurred_us: int
    origin_topic: str
    origin_partition: int
    origin_offset: int
    shown: ItemsShown
    acted: ItemActed
    listed: ItemListed
    barrier: Barrier
    def __init__(self, event_hash: _Optional[int] = ..., occurred_us: _Optional[int] = ..., origin_topic: _Optional[str] = ..., origin_partition: _Optional[int] = ..., origin_offset: _Optional[int] = ..., shown: _Optional[_Union[ItemsShown, _Mapping]] = ..., acted: _Optional[_Union[ItemActed, _Mapping]] = ..., listed: _Optional[_Union[ItemListed, _Mapping]] = ..., barrier: _Optional[_Union[Barrier, _Mapping]] = ...) -> None: ...

class ItemsShown(_message.Message):
    __slots__ = ("user_id", "item_ids", "categories", "positions", "places")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    user_id: int
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    categories: _containers.RepeatedScalarFieldContainer[int]
    positions: _containers.RepeatedScalarFieldContainer[int]
    places: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, user_id: _Optional[int] = ..., item_ids: _Optional[_Iterable[int]] = ..., categories: _Optional[_Iterable[int]] = ..., positions: _Optional[_Iterable[int]] = ..., places: _Optional[_Iterable[int]] = ...) -> None: ...

class ItemActed(_message.Message):
    __slots__ = ("user_id", "item_id", "category", "kind", "dwell_us")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DWELL_US_FIELD_NUMBER: _ClassVar[int]
    user_id: int
    item_id: int
    category: int
    kind: ActionKind
    dwell_us: int
    def __init__(self, user_id: _Optional[int] = ..., item_id: _Optional[int] = ..., category: _Optional[int] = ..., kind: _Optional[_Union[ActionKind, str]] = ..., dwell_us: _Optional[int] = ...) -> None: ...

class ItemListed(_message.Message):
    __slots__ = ("item_id", "category", "created_us")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    CREATED_US_FIELD_NUMBER: _ClassVar[int]
    item_id: int
    category: int
    created_us: int
    def __init__(self, item_id: _Optional[int] = ..., category: _Optional[int] = ..., created_us: _Optional[int] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("item_id", "item_key", "category", "created_at")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_KEY_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    item_id: int
    item_key: str
    category: int
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, item_id: _Optional[int] = ..., item_key: _Optional[str] = ..., category: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
