import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from rec.model.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GenerationStep(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GENERATION_STEP_UNSPECIFIED: _ClassVar[GenerationStep]
    GENERATION_STEP_SHADOW: _ClassVar[GenerationStep]
    GENERATION_STEP_COMPARE: _ClassVar[GenerationStep]
    GENERATION_STEP_PROMOTE: _ClassVar[GenerationStep]
    GENERATION_STEP_REJECT: _ClassVar[GenerationStep]
    GENERATION_STEP_ROLL_BACK: _ClassVar[GenerationStep]
GENERATION_STEP_UNSPECIFIED: GenerationStep
GENERATION_STEP_SHADOW: GenerationStep
GENERATION_STEP_COMPARE: GenerationStep
GENERATION_STEP_PROMOTE: GenerationStep
GENERATION_STEP_REJECT: GenerationStep
GENERATION_STEP_ROLL_BACK: GenerationStep

class RegisterGenerationRequest(_message.Message):
    __slots__ = ("manifest_uri", "manifest_digest", "parent_generation")
    MANIFEST_URI_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PARENT_GENERATION_FIELD_NUMBER: _ClassVar[int]
    manifest_uri: str
    manifest_digest: bytes
    parent_generation: int
    def __init__(self, manifest_uri: _Optional[str] = ..., manifest_digest: _Optional[bytes] = ..., parent_generation: _Optional[int] = ...) -> None: ...

class RegisterGenerationResponse(_message.Message):
    __slots__ = ("generation", "base")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    generation: int
    base: _model_pb2.BaseRef
    def __init__(self, generation: _Optional[int] = ..., base: _Optional[_Union[_model_pb2.BaseRef, _Mapping]] = ...) -> None: ...

class RegisterBaseRequest(_message.Message):
    __slots__ = ("lineage", "base")
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    lineage: _model_pb2.Lineage
    base: _model_pb2.BaseRef
    def __init__(self, lineage: _Optional[_Union[_model_pb2.Lineage, _Mapping]] = ..., base: _Optional[_Union[_model_pb2.BaseRef, _Mapping]] = ...) -> None: ...

class RegisterBaseResponse(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...

class SetArmRequest(_message.Message):
    __slots__ = ("arm", "lineage", "pinned_sequence", "state")
    ARM_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    PINNED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    arm: str
    lineage: _model_pb2.Lineage
    pinned_sequence: int
    state: _model_pb2.ReleaseState
    def __init__(self, arm: _Optional[str] = ..., lineage: _Optional[_Union[_model_pb2.Lineage, _Mapping]] = ..., pinned_sequence: _Optional[int] = ..., state: _Optional[_Union[_model_pb2.ReleaseState, str]] = ...) -> None: ...

class SetArmResponse(_message.Message):
    __slots__ = ("release",)
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    release: _model_pb2.Release
    def __init__(self, release: _Optional[_Union[_model_pb2.Release, _Mapping]] = ...) -> None: ...

class RollBackRequest(_message.Message):
    __slots__ = ("lineage", "to_sequence", "to_time", "reason")
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    TO_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TO_TIME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    lineage: _model_pb2.Lineage
    to_sequence: int
    to_time: _timestamp_pb2.Timestamp
    reason: str
    def __init__(self, lineage: _Optional[_Union[_model_pb2.Lineage, _Mapping]] = ..., to_sequence: _Optional[int] = ..., to_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class RollBackResponse(_message.Message):
    __slots__ = ("rollback",)
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    rollback: _model_pb2.Rollback
    def __init__(self, rollback: _Optional[_Union[_model_pb2.Rollback, _Mapping]] = ...) -> None: ...

class ReportRollbackRequest(_message.Message):
    __slots__ = ("lineage", "rollback")
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    lineage: _model_pb2.Lineage
    rollback: _model_pb2.Rollback
    def __init__(self, lineage: _Optional[_Union[_model_pb2.Lineage, _Mapping]] = ..., rollback: _Optional[_Union[_model_pb2.Rollback, _Mapping]] = ...) -> None: ...

class ReportRollbackResponse(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...

class GateGenerationRequest(_message.Message):
    __slots__ = ("generation",)
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    generation: int
    def __init__(self, generation: _Optional[int] = ...) -> None: ...

class GateGenerationResponse(_message.Message):
    __slots__ = ("state", "evidence_json")
    STATE_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_JSON_FIELD_NUMBER: _ClassVar[int]
    state: str
    evidence_json: str
    def __init__(self, state: _Optional[str] = ..., evidence_json: _Optional[str] = ...) -> None: ...

class StepGenerationRequest(_message.Message):
    __slots__ = ("generation", "step", "shares", "reason")
    class SharesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    generation: int
    step: GenerationStep
    shares: _containers.ScalarMap[str, float]
    reason: str
    def __init__(self, generation: _Optional[int] = ..., step: _Optional[_Union[GenerationStep, str]] = ..., shares: _Optional[_Mapping[str, float]] = ..., reason: _Optional[str] = ...) -> None: ...

class StepGenerationResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: str
    def __init__(self, state: _Optional[str] = ...) -> None: ...

class HoldGenerationRequest(_message.Message):
    __slots__ = ("generation", "held", "reason")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    generation: int
    held: bool
    reason: str
    def __init__(self, generation: _Optional[int] = ..., held: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class HoldGenerationResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: str
    def __init__(self, state: _Optional[str] = ...) -> None: ...

class GetServedRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServedArm(_message.Message):
    __slots__ = ("arm", "figures")
    class FiguresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ARM_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    arm: str
    figures: _containers.ScalarMap[str, float]
    def __init__(self, arm: _Optional[str] = ..., figures: _Optional[_Mapping[str, float]] = ...) -> None: ...

class GetServedResponse(_message.Message):
    __slots__ = ("arms",)
    ARMS_FIELD_NUMBER: _ClassVar[int]
    arms: _containers.RepeatedCompositeFieldContainer[ServedArm]
    def __init__(self, arms: _Optional[_Iterable[_Union[ServedArm, _Mapping]]] = ...) -> None: ...

class ListReleasesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Generation(_message.Message):
    __slots__ = ("generation", "parent_generation", "base", "registered_at", "life")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PARENT_GENERATION_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_AT_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    generation: int
    parent_generation: int
    base: _model_pb2.BaseRef
    registered_at: _timestamp_pb2.Timestamp
    life: _model_pb2.Life
    def __init__(self, generation: _Optional[int] = ..., parent_generation: _Optional[int] = ..., base: _Optional[_Union[_model_pb2.BaseRef, _Mapping]] = ..., registered_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., life: _Optional[_Union[_model_pb2.Life, _Mapping]] = ...) -> None: ...

class ListReleasesResponse(_message.Message):
    __slots__ = ("generations", "releases", "rollbacks")
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    ROLLBACKS_FIELD_NUMBER: _ClassVar[int]
    generations: _containers.RepeatedCompositeFieldContainer[Generation]
    releases: _containers.RepeatedCompositeFieldContainer[_model_pb2.Release]
    rollbacks: _containers.RepeatedCompositeFieldContainer[_model_pb2.Release]
    def __init__(self, generations: _Optional[_Iterable[_Union[Generation, _Mapping]]] = ..., releases: _Optional[_Iterable[_Union[_model_pb2.Release, _Mapping]]] = ..., rollbacks: _Optional[_Iterable[_Union[_model_pb2.Release, _Mapping]]] = ...) -> None: ...
