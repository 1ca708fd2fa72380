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

class RecallSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RECALL_SOURCE_UNSPECIFIED: _ClassVar[RecallSource]
    RECALL_SOURCE_VECTOR: _ClassVar[RecallSource]
    RECALL_SOURCE_POPULAR: _ClassVar[RecallSource]
    RECALL_SOURCE_FRESH: _ClassVar[RecallSource]
    RECALL_SOURCE_CO_CLICK: _ClassVar[RecallSource]
    RECALL_SOURCE_EXPLORATION: _ClassVar[RecallSource]
    RECALL_SOURCE_REQUEST: _ClassVar[RecallSource]
    RECALL_SOURCE_FALLBACK: _ClassVar[RecallSource]
RECALL_SOURCE_UNSPECIFIED: RecallSource
RECALL_SOURCE_VECTOR: RecallSource
RECALL_SOURCE_POPULAR: RecallSource
RECALL_SOURCE_FRESH: RecallSource
RECALL_SOURCE_CO_CLICK: RecallSource
RECALL_SOURCE_EXPLORATION: RecallSource
RECALL_SOURCE_REQUEST: RecallSource
RECALL_SOURCE_FALLBACK: RecallSource

class Degradation(_message.Message):
    __slots__ = ("source", "reason")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    source: str
    reason: str
    def __init__(self, source: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("request_id", "model", "applied_at", "staleness", "arm", "degraded", "replica", "feature_schema_hash", "scored", "served_at")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    APPLIED_AT_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    SCORED_FIELD_NUMBER: _ClassVar[int]
    SERVED_AT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: _model_pb2.ModelVersion
    applied_at: _timestamp_pb2.Timestamp
    staleness: _duration_pb2.Duration
    arm: str
    degraded: _containers.RepeatedCompositeFieldContainer[Degradation]
    replica: str
    feature_schema_hash: int
    scored: bool
    served_at: _timestamp_pb2.Timestamp
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[_Union[_model_pb2.ModelVersion, _Mapping]] = ..., applied_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., staleness: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., arm: _Optional[str] = ..., degraded: _Optional[_Iterable[_Union[Degradation, _Mapping]]] = ..., replica: _Optional[str] = ..., feature_schema_hash: _Optional[int] = ..., scored: _Optional[bool] = ..., served_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ShadowResult(_message.Message):
    __slots__ = ("arm", "model", "item_ids", "scores", "scored")
    ARM_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SCORED_FIELD_NUMBER: _ClassVar[int]
    arm: str
    model: _model_pb2.ModelVersion
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    scored: bool
    def __init__(self, arm: _Optional[str] = ..., model: _Optional[_Union[_model_pb2.ModelVersion, _Mapping]] = ..., item_ids: _Optional[_Iterable[int]] = ..., scores: _Optional[_Iterable[float]] = ..., scored: _Optional[bool] = ...) -> None: ...
