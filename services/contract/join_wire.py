"""The bytes of a TrainingSample, piece by piece: what a join says is cut out of bytes, not set by field.

Building and serialising two messages a request cost as much as all rules of the join together. The pieces
stand in the order of their fields, as protobuf itself writes them: equal to its own bytes (tested).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

from services.contract.times import MICROS

_U64 = (1 << 64) - 1
Span = tuple[int, int]


def varint(number: int) -> bytes:
    """Base 128, least first; ``number`` at least 0."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


@lru_cache(maxsize=1024)
def head_of(field: int, size: int) -> bytes:
    """What stands before the ``size`` bytes of a length-delimited field."""
    return varint(field << 3 | 2) + varint(size)


def delimited(field: int, payload: bytes) -> bytes:
    """A length-delimited field; nothing when it is empty, as proto3 leaves out what is at its default."""
    return head_of(field, len(payload)) + payload if payload else b""


def stamped(field: int, micros: int) -> bytes:
    """A Timestamp field; there even when it is zero."""
    seconds, rest = divmod(micros, MICROS)
    stamp = _seconds(seconds)
    if rest:
        stamp += b"\x10" + varint(rest * 1000)
    return head_of(field, len(stamp)) + stamp


@lru_cache(maxsize=1024)
def _seconds(seconds: int) -> bytes:
    # A negative number is written as its 64 bits.
    return b"\x08" + varint(seconds & _U64) if seconds else b""


@lru_cache(maxsize=64)
def u64s(count: int) -> struct.Struct:
    """Reads and writes a column of so many ids."""
    return struct.Struct(f"<{count}Q")


@lru_cache(maxsize=64)
def sample_rate(rate: float) -> bytes:
    """Field 14, float."""
    return b"\x75" + struct.pack("<f", rate)


class Frame(NamedTuple):
    """What stands before each column of n rows; those with one label and one label version are in it."""

    ids: bytes
    positions: bytes
    scores: bytes
    features: bytes


@lru_cache(maxsize=1024)
def frame(rows: int, row_bytes: int, label: float, version: int) -> Frame:
    """Fields 7 to 12 around their columns; ``row_bytes``: features of one row."""
    labels, versions = struct.pack("<f", label) * rows, struct.pack("<I", version) * rows
    return Frame(
        head_of(7, 8 * rows),
        delimited(8, labels) + delimited(9, versions) + head_of(10, 4 * rows),
        head_of(11, 4 * rows),
        head_of(12, row_bytes * rows) if row_bytes else b"",
    )


@lru_cache(maxsize=4)
def joined_at(micros: int) -> bytes:
    """Field 18: the last one, so it can be added to a sample that is otherwise complete."""
    return stamped(18, micros)


def sample_record(sample: bytes, last: bytes = b"") -> bytes:
    """The bytes of SampleRecord(sample=...) around a TrainingSample and its ``last`` field."""
    return b"".join((b"\x0a", varint(len(sample) + len(last)), sample, last))


def in_spans(column: bytes, width: int, spans: list[Span]) -> bytes:
    """Rows [first, end) of a packed column, joined."""
    if len(spans) == 1:
        first, end = spans[0]
        return column[width * first : width * end]
    return b"".join([column[width * first : width * end] for first, end in spans])
