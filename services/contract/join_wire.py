"""The bytes of a TrainingSample, piece by piece: what a join says is cut out of bytes, not set by field.

Building and serialising two messages a request cost as much as all rules of the join together. The pieces
stand in the order of their fields, as protobuf itself writes them: equal to its own bytes (tested).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from services.contract.times import MICROS

_U64: Final = (1 << 64) - 1
# Tags of Timestamp fields: 15, 16 and 18.
IMPRESSED_AT: Final = b"\x7a"
ACTED_AT: Final = b"\x82\x01"
JOINED_AT: Final = b"\x92\x01"
Span = tuple[int, int]


def varint(number: int) -> bytes:
    """Base 128, least first; ``number`` at least 0."""
    encoded: list[int] = []
    _put(encoded, number)
    return bytes(encoded)


def _put(encoded: list[int], number: int) -> None:
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)


@lru_cache(maxsize=1024)
def head_of(field: int, size: int) -> bytes:
    """What stands before the ``size`` bytes of a length-delimited field."""
    return varint(field << 3 | 2) + varint(size)


def delimited(field: int, payload: bytes) -> bytes:
    """A length-delimited field; nothing when it is empty, as proto3 leaves out what is at its default."""
    return head_of(field, len(payload)) + payload if payload else b""


def stamped(tag: bytes, micros: int) -> bytes:
    """A Timestamp field; there even when it is zero."""
    seconds, rest = micros // MICROS, micros % MICROS
    encoded = [0]
    if seconds:
        encoded.append(0x08)
        # A negative number is written as its 64 bits.
        _put(encoded, seconds if seconds > 0 else seconds & _U64)
    if rest:
        encoded.append(0x10)
        _put(encoded, rest * 1000)
    encoded[0] = len(encoded) - 1
    return tag + bytes(encoded)


@lru_cache(maxsize=64)
def u64s(count: int) -> struct.Struct:
    """Reads and writes a column of so many ids."""
    return struct.Struct(f"<{count}Q")


@lru_cache(maxsize=64)
def sample_rate(rate: float) -> bytes:
    """Field 14, float."""
    return b"\x75" + struct.pack("<f", rate)


class Frame:
    """What stands before each column of n rows; those with one label and one label version are in it."""

    __slots__ = ("features", "ids", "positions", "scores")

    def __init__(self, ids: bytes, positions: bytes, scores: bytes, features: bytes) -> None:
        self.ids = ids
        self.positions = positions
        self.scores = scores
        self.features = features


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
    return stamped(JOINED_AT, micros)


def sample_record(sample: bytes, last: bytes = b"") -> bytes:
    """The bytes of SampleRecord(sample=...) around a TrainingSample and its ``last`` field."""
    return b"".join((b"\x0a", varint(len(sample) + len(last)), sample, last))


def in_spans(column: bytes, width: int, spans: list[Span]) -> bytes:
    """Rows [first, end) of a packed column, joined."""
    if len(spans) == 1:
        first, end = spans[0]
        return column[width * first : width * end]
    return b"".join([column[width * first : width * end] for first, end in spans])
