"""The error tree as gRPC status with google.rpc details, and back.

| error | status | details |
|---|---|---|
| InvalidInput and below | INVALID_ARGUMENT | BadRequest (the violations), ErrorInfo |
| Overloaded | RESOURCE_EXHAUSTED | ErrorInfo, RetryInfo |
| Unavailable | UNAVAILABLE | ErrorInfo, RetryInfo |
| DeadlineSpent, TimeoutError | DEADLINE_EXCEEDED | ErrorInfo |
| Forbidden | PERMISSION_DENIED | ErrorInfo (who is calling) |
| NotFound | NOT_FOUND | ErrorInfo |
| Conflict | FAILED_PRECONDITION | ErrorInfo |
| another server's UNAVAILABLE, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED | the same | ErrorInfo |
| anything else | INTERNAL | none: its text stays in the log |
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from services.contract.errors import (
    Conflict,
    DeadlineSpent,
    FieldViolation,
    Forbidden,
    InvalidInput,
    LoopError,
    NotFound,
    Overloaded,
    Unavailable,
)

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "recloop"
# Trailers above 8 KB are refused by the peer, with an error that hides ours.
_MAX_VIOLATION_BYTES = 3_000
_MAX_MESSAGE_CHARS = 1_000
_RETRY_MS = 200

_CODES: tuple[tuple[type[BaseException], grpc.StatusCode], ...] = (
    (InvalidInput, grpc.StatusCode.INVALID_ARGUMENT),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (DeadlineSpent, grpc.StatusCode.DEADLINE_EXCEEDED),
    (TimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (Forbidden, grpc.StatusCode.PERMISSION_DENIED),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (Conflict, grpc.StatusCode.FAILED_PRECONDITION),
)
_PASSED_ON = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


@dataclass(frozen=True)
class ErrorStatus:
    """What a caller gets to see of an error. ``expected`` is False for what only a bug raises."""

    code: grpc.StatusCode
    message: str
    trailing_metadata: tuple[tuple[str, bytes], ...]
    expected: bool


def status_of(error: BaseException) -> ErrorStatus:
    """The status that a raised error becomes."""
    code = _code_of(error)
    if code is None:
        message = f"internal error ({type(error).__name__}); the server's log has it"
        return ErrorStatus(grpc.StatusCode.INTERNAL, message, (), expected=False)
    text = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
    message = _cut(text or type(error).__name__)
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in _details_of(error, code):
        status.details.add().Pack(detail)
    return ErrorStatus(code, message, ((DETAILS_KEY, status.SerializeToString()),), expected=True)


def _code_of(error: BaseException) -> grpc.StatusCode | None:
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if isinstance(error, grpc.aio.AioRpcError) and error.code() in _PASSED_ON:
        return error.code()
    if isinstance(error, LoopError):
        return grpc.StatusCode.INTERNAL
    return None


def _details_of(error: BaseException, code: grpc.StatusCode) -> list[Message]:
    details: list[Message] = []
    if isinstance(error, InvalidInput):
        details.append(_bad_request(error.violations))
    about = {"identity": error.identity} if isinstance(error, Forbidden) else {}
    details.append(error_details_pb2.ErrorInfo(reason=_reason(error), domain=DOMAIN, metadata=about))
    if code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(_RETRY_MS)
        details.append(retry)
    return details


def _bad_request(violations: list[FieldViolation]) -> error_details_pb2.BadRequest:
    bad = error_details_pb2.BadRequest()
    for index, violation in enumerate(violations):
        described = f"{violation.value}: {violation.allowed}"
        bad.field_violations.add(field=violation.field, description=described)
        if bad.ByteSize() > _MAX_VIOLATION_BYTES and index + 1 < len(violations):
            bad.field_violations.add(field="...", description=f"and {len(violations) - index - 1} more")
            break
    return bad


def _reason(error: BaseException) -> str:
    """SchemaMismatch -> SCHEMA_MISMATCH."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).upper()


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE_CHARS else text[: _MAX_MESSAGE_CHARS - 3] + "..."


def details_of(error: grpc.RpcError) -> status_pb2.Status:
    """The details that a server sent with an error; empty when it sent none."""
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY:
            status.ParseFromString(value)
    return status


def violations_of(error: grpc.RpcError) -> list[tuple[str, str]]:
    """(field, description) of each violation that a server named."""
    bad = error_details_pb2.BadRequest()
    for detail in details_of(error).details:
        if detail.Unpack(bad):
            return [(violation.field, violation.description) for violation in bad.field_violations]
    return []


def reason_of(error: grpc.RpcError) -> str:
    """The ErrorInfo reason that a server named, or an empty string."""
    info = error_details_pb2.ErrorInfo()
    for detail in details_of(error).details:
        if detail.Unpack(info):
            return info.reason
    return ""
