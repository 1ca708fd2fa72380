"""The codec of ParameterDelta: what one update of a lineage says, sealed by its hash.

A record holds the header's bytes, the body's bytes and hash = SHA-256(header || body). ``unseal`` checks
the hash and the header only, so that the chain rules (contract.chain) decide before the
body is parsed; ``open_body`` parses and checks every column before anything is applied. The encoder runs
the same checks: what does not pass them never leaves the trainer.

Rows are absolute values. Ids of a column stand in ascending order, without repeats, so the same update has
one form.

    BadDelta.reason
    ├── undecodable   not a ParameterDelta, or larger than a record may be
    ├── bad_hash      the hash is not that of header and body
    ├── bad_header    a field of the header is out of range
    └── bad_body      a column of the wrong length, an unknown table, a repeated id, a value that is not
    finite
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from rec.model.v1 import model_pb2
from services.contract import delta_wire
from services.contract.delta_types import (
    BYTES_PER_ROW,
    HASH_BYTES,
    MAX_DELTA_BYTES,
    BadDelta,
    Body,
    DenseChange,
    Header,
    RolledBack,
    Step,
    TableChange,
    check_body,
    check_header,
    check_shapes,
)
from services.contract.errors import FieldViolation, InvalidInput

__all__ = [
    "BYTES_PER_ROW",
    "HASH_BYTES",
    "MAX_DELTA_BYTES",
    "BadDelta",
    "Body",
    "DenseChange",
    "Header",
    "RolledBack",
    "Sealed",
    "Step",
    "TableChange",
    "chain_hash",
    "check_body",
    "check_shapes",
    "open_body",
    "seal",
    "unseal",
]


@dataclass(frozen=True)
class Sealed:
    """A delta whose hash and header are good and whose body has not been looked at."""

    header: Header
    body: bytes
    hash: bytes


def seal(header: Header, body: Body) -> tuple[bytes, bytes]:
    """(value of the record, its hash). BadDelta when the delta must not be published."""
    check_header(header)
    check_body(body)
    header_bytes = delta_wire.header_proto(header).SerializeToString(deterministic=True)
    body_bytes = delta_wire.body_proto(body).SerializeToString(deterministic=True)
    digest = chain_hash(header_bytes, body_bytes)
    value = model_pb2.ParameterDelta(header=header_bytes, body=body_bytes, hash=digest).SerializeToString()
    if len(value) > MAX_DELTA_BYTES:
        raise BadDelta(
            "undecodable", [FieldViolation("delta", f"{len(value)} bytes", f"at most {MAX_DELTA_BYTES}")]
        )
    return value, digest


def unseal(value: bytes) -> Sealed:
    """Checks the size, the hash and the header of a record's value; BadDelta otherwise."""
    if len(value) > MAX_DELTA_BYTES:
        raise BadDelta(
            "undecodable", [FieldViolation("delta", f"{len(value)} bytes", f"at most {MAX_DELTA_BYTES}")]
        )
    try:
        record = model_pb2.ParameterDelta.FromString(value)
    except DecodeError as error:
        raise BadDelta("undecodable", [FieldViolation("delta", str(error), "a ParameterDelta")]) from error
    if record.hash != chain_hash(record.header, record.body):
        raise BadDelta("bad_hash", [FieldViolation("hash", record.hash.hex(), "SHA-256(header || body)")])
    try:
        header = delta_wire.header_of(model_pb2.DeltaHeader.FromString(record.header))
    except DecodeError as error:
        raise BadDelta("undecodable", [FieldViolation("header", str(error), "a DeltaHeader")]) from error
    check_header(header)
    return Sealed(header, record.body, record.hash)


def open_body(sealed: Sealed) -> Body:
    """The body's columns as read-only views of its bytes, all checked; BadDelta otherwise."""
    try:
        proto = model_pb2.DeltaBody.FromString(sealed.body)
    except DecodeError as error:
        raise BadDelta("undecodable", [FieldViolation("body", str(error), "a DeltaBody")]) from error
    try:
        body = delta_wire.body_of(proto)
    except InvalidInput as error:
        raise BadDelta("bad_body", error.violations) from error
    check_body(body)
    return body


def chain_hash(header: bytes, body: bytes) -> bytes:
    """SHA-256(header || body)."""
    digest = hashlib.sha256(header)
    digest.update(body)
    return digest.digest()
