import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from rec.v1 import provenance_pb2 as _provenance_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecommendRequest(_message.Message):
    __slots__ = ("user_id", "user_key", "n", "request_id", "occurred_at", "candidates", "candidate_ids", "arm", "shadow_arms")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    USER_KEY_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_IDS_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    SHADOW_ARMS_FIELD_NUMBER: _ClassVar[int]
    user_id: int
    user_key: str
    n: int
    request_id: str
    occurred_at: _timestamp_pb2.Timestamp
    candidates: int
    candidate_ids: _containers.RepeatedScalarFieldContainer[int]
    arm: str
    shadow_arms: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, user_id: _Optional[int] = ..., user_key: _Optional[str] = ..., n: _Optional[int] = ..., request_id: _Optional[str] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., candidates: _Optional[int] = ..., candidate_ids: _Optional[_Iterable[int]] = ..., arm: _Optional[str] = ..., shadow_arms: _Optional[_Iterable[str]] = ...) -> None: ...

class RecommendedItem(_message.Message):
    __slots__ = ("item_id", "score", "sources")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    item_id: int
    score: float
    sources: _containers.RepeatedScalarFieldContainer[_provenance_pb2.RecallSource]
    def __init__(self, item_id: _Optional[int] = ..., score: _Optional[float] = ..., sources: _Optional[_Iterable[_Union[_provenance_pb2.RecallSource, str]]] = ...) -> None: ...

class RecommendResponse(_message.Message):
    __slots__ = ("request_id", "items", "provenance", "shadows", "candidates")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    SHADOWS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    items: _containers.RepeatedCompositeFieldContainer[RecommendedItem]
    provenance: _provenance_pb2.Provenance
    shadows: _containers.RepeatedCompositeFieldContainer[_provenance_pb2.ShadowResult]
    candidates: int
    def __init__(self, request_id: _Optional[str] = ..., items: _Optional[_Iterable[_Union[RecommendedItem, _Mapping]]] = ..., provenance: _Optional[_Union[_provenance_pb2.Provenance, _Mapping]] = ..., shadows: _Optional[_Iterable[_Union[_provenance_pb2.ShadowResult, _Mapping]]] = ..., candidates: _Optional[int] = ...) -> None: ...
