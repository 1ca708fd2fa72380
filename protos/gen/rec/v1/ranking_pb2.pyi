import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from rec.model.v1 import model_pb2 as _model_pb2
from rec.v1 import provenance_pb2 as _provenance_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RankRequest(_message.Message):
    __slots__ = ("request_id", "user_id", "occurred_at", "n", "item_ids", "schema_hash", "user_features", "item_features", "arm", "shadow_arms", "features_degraded", "arm_assigned")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_HASH_FIELD_NUMBER: _ClassVar[int]
    USER_FEATURES_FIELD_NUMBER: _ClassVar[int]
    ITEM_FEATURES_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    SHADOW_ARMS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_DEGRADED_FIELD_NUMBER: _ClassVar[int]
    ARM_ASSIGNED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    user_id: int
    occurred_at: _timestamp_pb2.Timestamp
    n: int
    item_ids: bytes
    schema_hash: int
    user_features: bytes
    item_features: bytes
    arm: str
    shadow_arms: _containers.RepeatedScalarFieldContainer[str]
    features_degraded: bool
    arm_assigned: bool
    def __init__(self, request_id: _Optional[str] = ..., user_id: _Optional[int] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., n: _Optional[int] = ..., item_ids: _Optional[bytes] = ..., schema_hash: _Optional[int] = ..., user_features: _Optional[bytes] = ..., item_features: _Optional[bytes] = ..., arm: _Optional[str] = ..., shadow_arms: _Optional[_Iterable[str]] = ..., features_degraded: _Optional[bool] = ..., arm_assigned: _Optional[bool] = ...) -> None: ...

class RankResponse(_message.Message):
    __slots__ = ("item_ids", "scores", "provenance", "shadows")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    SHADOWS_FIELD_NUMBER: _ClassVar[int]
    item_ids: bytes
    scores: bytes
    provenance: _provenance_pb2.Provenance
    shadows: _containers.RepeatedCompositeFieldContainer[_provenance_pb2.ShadowResult]
    def __init__(self, item_ids: _Optional[bytes] = ..., scores: _Optional[bytes] = ..., provenance: _Optional[_Union[_provenance_pb2.Provenance, _Mapping]] = ..., shadows: _Optional[_Iterable[_Union[_provenance_pb2.ShadowResult, _Mapping]]] = ...) -> None: ...

class GetModelStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ArmStatus(_message.Message):
    __slots__ = ("arm", "model", "applied_at", "created_at", "slot_state", "chain_hash", "refused", "state_digest", "rows")
    class RefusedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ARM_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    APPLIED_AT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    SLOT_STATE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_HASH_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    STATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    arm: str
    model: _model_pb2.ModelVersion
    applied_at: _timestamp_pb2.Timestamp
    created_at: _timestamp_pb2.Timestamp
    slot_state: str
    chain_hash: bytes
    refused: _containers.ScalarMap[str, int]
    state_digest: bytes
    rows: int
    def __init__(self, arm: _Optional[str] = ..., model: _Optional[_Union[_model_pb2.ModelVersion, _Mapping]] = ..., applied_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., slot_state: _Optional[str] = ..., chain_hash: _Optional[bytes] = ..., refused: _Optional[_Mapping[str, int]] = ..., state_digest: _Optional[bytes] = ..., rows: _Optional[int] = ...) -> None: ...

class GetModelStatusResponse(_message.Message):
    __slots__ = ("arms", "replica")
    ARMS_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    arms: _containers.RepeatedCompositeFieldContainer[ArmStatus]
    replica: str
    def __init__(self, arms: _Optional[_Iterable[_Union[ArmStatus, _Mapping]]] = ..., replica: _Optional[str] = ...) -> None: ...

class WatchAppliedRequest(_message.Message):
    __slots__ = ("arm",)
    ARM_FIELD_NUMBER: _ClassVar[int]
    arm: str
    def __init__(self, arm: _Optional[str] = ...) -> None: ...

class WatchAppliedResponse(_message.Message):
    __slots__ = ("replica", "arm", "model", "created_at", "applied_at", "rows", "bytes")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    APPLIED_AT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    replica: str
    arm: str
    model: _model_pb2.ModelVersion
    created_at: _timestamp_pb2.Timestamp
    applied_at: _timestamp_pb2.Timestamp
    rows: int
    bytes: int
    def __init__(self, replica: _Optional[str] = ..., arm: _Optional[str] = ..., model: _Optional[_Union[_model_pb2.ModelVersion, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., applied_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., rows: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class RankingServiceWaitForBarrierRequest(_message.Message):
    __slots__ = ("barrier_id", "arm", "timeout")
    BARRIER_ID_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    barrier_id: str
    arm: str
    timeout: _duration_pb2.Duration
    def __init__(self, barrier_id: _Optional[str] = ..., arm: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RankingServiceWaitForBarrierResponse(_message.Message):
    __slots__ = ("model", "passed_at")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PASSED_AT_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.ModelVersion
    passed_at: _timestamp_pb2.Timestamp
    def __init__(self, model: _Optional[_Union[_model_pb2.ModelVersion, _Mapping]] = ..., passed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RankingServiceEmitBarrierRequest(_message.Message):
    __slots__ = ("barrier_id", "occurred_at")
    BARRIER_ID_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    barrier_id: str
    occurred_at: _timestamp_pb2.Timestamp
    def __init__(self, barrier_id: _Optional[str] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RankingServiceEmitBarrierResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
