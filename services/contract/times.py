"""Event time as integer microseconds since 1970 UTC, and its protobuf form."""

from __future__ import annotations

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

MICROS: Final = 1_000_000


def to_us(stamp: Timestamp) -> int:
    """Microseconds since 1970 UTC; finer digits are truncated."""
    return stamp.seconds * MICROS + stamp.nanos // 1000


def set_us(stamp: Timestamp, micros: int) -> None:
    """Writes microseconds since 1970 UTC into a protobuf Timestamp in place."""
    stamp.seconds, rest = divmod(micros, MICROS)
    stamp.nanos = rest * 1000


def from_us(micros: int) -> Timestamp:
    """A new protobuf Timestamp of microseconds since 1970 UTC."""
    seconds, rest = divmod(micros, MICROS)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def leaves(before_us: int, after_us: int, interval_us: int) -> bool:
    """Whether event time leaves an interval between two moments: intervals begin at multiples of their
    length."""
    return after_us // interval_us > before_us // interval_us
