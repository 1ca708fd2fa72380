"""The error tree of the loop.

    LoopError
    ├── InvalidInput        the caller's fault; says field, value and what is allowed
    │   ├── SchemaMismatch  encoded under a schema that this process does not know
    │   └── MalformedRecord bytes that do not decode (dead letter, never a retry)
    │       └── BadSignature  a manifest that no trusted key has signed
    ├── Unavailable         a dependency or this process cannot answer now
    │   └── Overloaded      a bounded queue is full
    ├── DeadlineSpent       the deadline ended before the work did
    ├── Forbidden           the caller is known, and may not do this (contract.access)
    ├── NotFound            a named thing does not exist
    └── Conflict            the state refuses the change (older epoch, broken chain)

One interceptor (services/runtime/grpc_errors.py) maps the tree to gRPC status.
"""

from __future__ import annotations

from dataclasses import dataclass


class LoopError(Exception):
    """Root of every error that the loop raises on purpose."""


@dataclass(frozen=True)
class FieldViolation:
    """One bad field: where it stands, what it held, what is allowed."""

    field: str
    value: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.field}={self.value}: {self.allowed}"


class InvalidInput(LoopError):
    """The input is wrong; nothing was done."""

    def __init__(self, violations: list[FieldViolation]) -> None:
        super().__init__("; ".join(str(violation) for violation in violations))
        self.violations = violations

    @classmethod
    def one(cls, field: str, value: object, allowed: str) -> InvalidInput:
        """An error about a single field; ``value`` is cut to 100 characters."""
        return cls([FieldViolation(field, str(value)[:100], allowed)])


class SchemaMismatch(InvalidInput):
    """Bytes encoded under another schema hash than the ones known here."""


class MalformedRecord(InvalidInput):
    """Bytes that do not decode."""


class BadSignature(MalformedRecord):
    """A manifest that no trusted key has signed as it stands."""


class Unavailable(LoopError):
    """Cannot answer now; a retry may succeed."""


class Overloaded(Unavailable):
    """A bounded queue is full."""


class DeadlineSpent(LoopError):
    """The caller's deadline ended."""


class Forbidden(LoopError):
    """Known, and not allowed."""

    def __init__(self, identity: str, what: str, allowed: str) -> None:
        super().__init__(f"{identity or 'a caller without a name'} may not {what}: {allowed}")
        self.identity = identity


class NotFound(LoopError):
    """A named thing does not exist."""


class Conflict(LoopError):
    """The current state refuses the change."""
