import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReleaseState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RELEASE_STATE_UNSPECIFIED: _ClassVar[ReleaseState]
    RELEASE_STATE_SERVING: _ClassVar[ReleaseState]
    RELEASE_STATE_SHADOW: _ClassVar[ReleaseState]
    RELEASE_STATE_RETIRED: _ClassVar[ReleaseState]
RELEASE_STATE_UNSPECIFIED: ReleaseState
RELEASE_STATE_SERVING: ReleaseState
RELEASE_STATE_SHADOW: ReleaseState
RELEASE_STATE_RETIRED: ReleaseState

class Lineage(_message.Message):
    __slots__ = ("generation", "policy")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    generation: int
    policy: str
    def __init__(self, generation: _Optional[int] = ..., policy: _Optional[str] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("lineage", "sequence")
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    lineage: Lineage
    sequence: int
    def __init__(self, lineage: _Optional[_Union[Lineage, _Mapping]] = ..., sequence: _Optional[int] = ...) -> None: ...

class PartitionOffset(_message.Message):
    __slots__ = ("partition", "offset")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    partition: int
    offset: int
    def __init__(self, partition: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class TrainStep(_message.Message):
    __slots__ = ("finished_at", "sample_offsets")
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    finished_at: _timestamp_pb2.Timestamp
    sample_offsets: _containers.RepeatedCompositeFieldContainer[PartitionOffset]
    def __init__(self, finished_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sample_offsets: _Optional[_Iterable[_Union[PartitionOffset, _Mapping]]] = ...) -> None: ...

class ParameterDelta(_message.Message):
    __slots__ = ("header", "body", "hash")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    header: bytes
    body: bytes
    hash: bytes
    def __init__(self, header: _Optional[bytes] = ..., body: _Optional[bytes] = ..., hash: _Optional[bytes] = ...) -> None: ...

class DeltaHeader(_message.Message):
    __slots__ = ("lineage", "sequence", "epoch", "previous_hash", "model_hash", "created_at", "sample_offsets", "steps", "samples_trained", "barrier_ids", "trained_until", "open_barriers", "rollback")
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_HASH_FIELD_NUMBER: _ClassVar[int]
    MODEL_HASH_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_TRAINED_FIELD_NUMBER: _ClassVar[int]
    BARRIER_IDS_FIELD_NUMBER: _ClassVar[int]
    TRAINED_UNTIL_FIELD_NUMBER: _ClassVar[int]
    OPEN_BARRIERS_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    lineage: Lineage
    sequence: int
    epoch: int
    previous_hash: bytes
    model_hash: int
    created_at: _timestamp_pb2.Timestamp
    sample_offsets: _containers.RepeatedCompositeFieldContainer[PartitionOffset]
    steps: _containers.RepeatedCompositeFieldContainer[TrainStep]
    samples_trained: int
    barrier_ids: _containers.RepeatedScalarFieldContainer[str]
    trained_until: _timestamp_pb2.Timestamp
    open_barriers: _containers.RepeatedCompositeFieldContainer[OpenBarrier]
    rollback: RolledBack
    def __init__(self, lineage: _Optional[_Union[Lineage, _Mapping]] = ..., sequence: _Optional[int] = ..., epoch: _Optional[int] = ..., previous_hash: _Optional[bytes] = ..., model_hash: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sample_offsets: _Optional[_Iterable[_Union[PartitionOffset, _Mapping]]] = ..., steps: _Optional[_Iterable[_Union[TrainStep, _Mapping]]] = ..., samples_trained: _Optional[int] = ..., barrier_ids: _Optional[_Iterable[str]] = ..., trained_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., open_barriers: _Optional[_Iterable[_Union[OpenBarrier, _Mapping]]] = ..., rollback: _Optional[_Union[RolledBack, _Mapping]] = ...) -> None: ...

class OffsetRange(_message.Message):
    __slots__ = ("partition", "start", "end")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    partition: int
    start: int
    end: int
    def __init__(self, partition: _Optional[int] = ..., start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class RolledBack(_message.Message):
    __slots__ = ("order", "restored_sequence", "quarantined")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    RESTORED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    order: int
    restored_sequence: int
    quarantined: _containers.RepeatedCompositeFieldContainer[OffsetRange]
    def __init__(self, order: _Optional[int] = ..., restored_sequence: _Optional[int] = ..., quarantined: _Optional[_Iterable[_Union[OffsetRange, _Mapping]]] = ...) -> None: ...

class OpenBarrier(_message.Message):
    __slots__ = ("barrier_id", "partitions")
    BARRIER_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    barrier_id: str
    partitions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, barrier_id: _Optional[str] = ..., partitions: _Optional[_Iterable[int]] = ...) -> None: ...

class DeltaBody(_message.Message):
    __slots__ = ("tables", "dense")
    TABLES_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    tables: _containers.RepeatedCompositeFieldContainer[TableDelta]
    dense: _containers.RepeatedCompositeFieldContainer[DenseTensor]
    def __init__(self, tables: _Optional[_Iterable[_Union[TableDelta, _Mapping]]] = ..., dense: _Optional[_Iterable[_Union[DenseTensor, _Mapping]]] = ...) -> None: ...

class TableDelta(_message.Message):
    __slots__ = ("table", "ids", "rows", "optimizer", "counts", "last_seen_us", "expired_ids", "pending_ids", "pending_counts", "pending_last_seen_us")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_US_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_IDS_FIELD_NUMBER: _ClassVar[int]
    PENDING_IDS_FIELD_NUMBER: _ClassVar[int]
    PENDING_COUNTS_FIELD_NUMBER: _ClassVar[int]
    PENDING_LAST_SEEN_US_FIELD_NUMBER: _ClassVar[int]
    table: str
    ids: bytes
    rows: bytes
    optimizer: bytes
    counts: bytes
    last_seen_us: bytes
    expired_ids: bytes
    pending_ids: bytes
    pending_counts: bytes
    pending_last_seen_us: bytes
    def __init__(self, table: _Optional[str] = ..., ids: _Optional[bytes] = ..., rows: _Optional[bytes] = ..., optimizer: _Optional[bytes] = ..., counts: _Optional[bytes] = ..., last_seen_us: _Optional[bytes] = ..., expired_ids: _Optional[bytes] = ..., pending_ids: _Optional[bytes] = ..., pending_counts: _Optional[bytes] = ..., pending_last_seen_us: _Optional[bytes] = ...) -> None: ...

class DenseTensor(_message.Message):
    __slots__ = ("name", "shape", "values", "optimizer")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    values: bytes
    optimizer: bytes
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., values: _Optional[bytes] = ..., optimizer: _Optional[bytes] = ...) -> None: ...

class BaseRef(_message.Message):
    __slots__ = ("manifest_uri", "manifest_digest", "sequence", "chain_hash", "epoch", "delta_partition", "delta_offset")
    MANIFEST_URI_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_HASH_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    DELTA_PARTITION_FIELD_NUMBER: _ClassVar[int]
    DELTA_OFFSET_FIELD_NUMBER: _ClassVar[int]
    manifest_uri: str
    manifest_digest: bytes
    sequence: int
    chain_hash: bytes
    epoch: int
    delta_partition: int
    delta_offset: int
    def __init__(self, manifest_uri: _Optional[str] = ..., manifest_digest: _Optional[bytes] = ..., sequence: _Optional[int] = ..., chain_hash: _Optional[bytes] = ..., epoch: _Optional[int] = ..., delta_partition: _Optional[int] = ..., delta_offset: _Optional[int] = ...) -> None: ...

class Rollback(_message.Message):
    __slots__ = ("order", "to_sequence", "to_time", "reason", "ordered_at", "done", "sequence", "epoch", "rows", "published_at", "error")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    TO_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TO_TIME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ORDERED_AT_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_AT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    order: int
    to_sequence: int
    to_time: _timestamp_pb2.Timestamp
    reason: str
    ordered_at: _timestamp_pb2.Timestamp
    done: RolledBack
    sequence: int
    epoch: int
    rows: int
    published_at: _timestamp_pb2.Timestamp
    error: str
    def __init__(self, order: _Optional[int] = ..., to_sequence: _Optional[int] = ..., to_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ..., ordered_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., done: _Optional[_Union[RolledBack, _Mapping]] = ..., sequence: _Optional[int] = ..., epoch: _Optional[int] = ..., rows: _Optional[int] = ..., published_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., error: _Optional[str] = ...) -> None: ...

class Life(_message.Message):
    __slots__ = ("state", "shares", "reason", "held")
    class SharesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STATE_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    state: str
    shares: _containers.ScalarMap[str, float]
    reason: str
    held: bool
    def __init__(self, state: _Optional[str] = ..., shares: _Optional[_Mapping[str, float]] = ..., reason: _Optional[str] = ..., held: _Optional[bool] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("arm", "lineage", "base", "pinned_sequence", "state", "decided_at", "revision", "parent_generation", "rollback", "life", "standing_share")
    ARM_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    PINNED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DECIDED_AT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PARENT_GENERATION_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    STANDING_SHARE_FIELD_NUMBER: _ClassVar[int]
    arm: str
    lineage: Lineage
    base: BaseRef
    pinned_sequence: int
    state: ReleaseState
    decided_at: _timestamp_pb2.Timestamp
    revision: int
    parent_generation: int
    rollback: Rollback
    life: Life
    standing_share: float
    def __init__(self, arm: _Optional[str] = ..., lineage: _Optional[_Union[Lineage, _Mapping]] = ..., base: _Optional[_Union[BaseRef, _Mapping]] = ..., pinned_sequence: _Optional[int] = ..., state: _Optional[_Union[ReleaseState, str]] = ..., decided_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ..., parent_generation: _Optional[int] = ..., rollback: _Optional[_Union[Rollback, _Mapping]] = ..., life: _Optional[_Union[Life, _Mapping]] = ..., standing_share: _Optional[float] = ...) -> None: ...

class ReleaseEvent(_message.Message):
    __slots__ = ("arm", "decided_at", "decision", "evidence_json", "revision")
    ARM_FIELD_NUMBER: _ClassVar[int]
    DECIDED_AT_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_JSON_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    arm: str
    decided_at: _timestamp_pb2.Timestamp
    decision: str
    evidence_json: str
    revision: int
    def __init__(self, arm: _Optional[str] = ..., decided_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., decision: _Optional[str] = ..., evidence_json: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...
