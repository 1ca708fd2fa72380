import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from rec.events.v1 import events_pb2 as _events_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LogEventsRequest(_message.Message):
    __slots__ = ("impressions", "actions")
    IMPRESSIONS_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    impressions: _containers.RepeatedCompositeFieldContainer[_events_pb2.Impression]
    actions: _containers.RepeatedCompositeFieldContainer[_events_pb2.Action]
    def __init__(self, impressions: _Optional[_Iterable[_Union[_events_pb2.Impression, _Mapping]]] = ..., actions: _Optional[_Iterable[_Union[_events_pb2.Action, _Mapping]]] = ...) -> None: ...

class LogEventsResponse(_message.Message):
    __slots__ = ("accepted", "acknowledged_at")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_AT_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    acknowledged_at: _timestamp_pb2.Timestamp
    def __init__(self, accepted: _Optional[int] = ..., acknowledged_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class StreamEventsRequest(_message.Message):
    __slots__ = ("impressions", "actions")
    IMPRESSIONS_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    impressions: _containers.RepeatedCompositeFieldContainer[_events_pb2.Impression]
    actions: _containers.RepeatedCompositeFieldContainer[_events_pb2.Action]
    def __init__(self, impressions: _Optional[_Iterable[_Union[_events_pb2.Impression, _Mapping]]] = ..., actions: _Optional[_Iterable[_Union[_events_pb2.Action, _Mapping]]] = ...) -> None: ...

class StreamEventsResponse(_message.Message):
    __slots__ = ("accepted", "acknowledged_at")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_AT_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    acknowledged_at: _timestamp_pb2.Timestamp
    def __init__(self, accepted: _Optional[int] = ..., acknowledged_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PublishItemsRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[_events_pb2.Item]
    def __init__(self, items: _Optional[_Iterable[_Union[_events_pb2.Item, _Mapping]]] = ...) -> None: ...

class PublishItemsResponse(_message.Message):
    __slots__ = ("accepted", "acknowledged_at")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_AT_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    acknowledged_at: _timestamp_pb2.Timestamp
    def __init__(self, accepted: _Optional[int] = ..., acknowledged_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CollectorServiceEmitBarrierRequest(_message.Message):
    __slots__ = ("barrier_id", "occurred_at")
    BARRIER_ID_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    barrier_id: str
    occurred_at: _timestamp_pb2.Timestamp
    def __init__(self, barrier_id: _Optional[str] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CollectorServiceEmitBarrierResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
