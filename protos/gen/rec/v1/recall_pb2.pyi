import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from rec.model.v1 import model_pb2 as _model_pb2
from rec.v1 import provenance_pb2 as _provenance_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RetrieveRequest(_message.Message):
    __slots__ = ("request_id", "user_id", "n", "occurred_at")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    user_id: int
    n: int
    occurred_at: _timestamp_pb2.Timestamp
    def __init__(self, request_id: _Optional[str] = ..., user_id: _Optional[int] = ..., n: _Optional[int] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RetrieveResponse(_message.Message):
    __slots__ = ("item_ids", "sources", "degraded", "model")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    item_ids: bytes
    sources: bytes
    degraded: _containers.RepeatedCompositeFieldContainer[_provenance_pb2.Degradation]
    model: _model_pb2.ModelVersion
    def __init__(self, item_ids: _Optional[bytes] = ..., sources: _Optional[bytes] = ..., degraded: _Optional[_Iterable[_Union[_provenance_pb2.Degradation, _Mapping]]] = ..., model: _Optional[_Union[_model_pb2.ModelVersion, _Mapping]] = ...) -> None: ...

class GetRecallStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetRecallStatusResponse(_message.Message):
    __slots__ = ("catalogue_items", "vector_items", "model", "applied_at", "source_sizes")
    class SourceSizesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    CATALOGUE_ITEMS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    APPLIED_AT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_SIZES_FIELD_NUMBER: _ClassVar[int]
    catalogue_items: int
    vector_items: int
    model: _model_pb2.ModelVersion
    applied_at: _timestamp_pb2.Timestamp
    source_sizes: _containers.ScalarMap[str, int]
    def __init__(self, catalogue_items: _Optional[int] = ..., vector_items: _Optional[int] = ..., model: _Optional[_Union[_model_pb2.ModelVersion, _Mapping]] = ..., applied_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., source_sizes: _Optional[_Mapping[str, int]] = ...) -> None: ...
