"""Where a join stands on one input, as it travels in the metadata of a Kafka offset commit.

The committed offset says what has been joined. The metadata says from where the state can be
rebuilt: ``low_offset`` is the oldest record that still matters, ``clock_us`` and ``floor_us`` are the event
clock and the barrier floor just before it, so that lateness is judged again exactly as it was.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from services.contract.errors import MalformedRecord

VERSION = 1
# Kafka's default limit (offset.metadata.max.bytes) is 4096.
MAX_BYTES = 4096
MAX_PASSED = 4
# Before every event time.
NEVER_US: Final = -(1 << 62)


@dataclass(frozen=True)
class Position:
    """State of one input. Offsets are record offsets, times are event microseconds."""

    offset: int
    low_offset: int
    clock_us: int
    floor_us: int
    # Impressions before this were given up because the state was full (NEVER_US: none).
    evicted_us: int = NEVER_US
    # The last barriers passed, so that their repeats stay repeats.
    passed: tuple[str, ...] = ()
    # Of the JoinConfig.
    fingerprint: str = ""


def start(offset: int) -> Position:
    """Position of an input that nothing has been read from."""
    return Position(offset, offset, NEVER_US, NEVER_US)


def encode_position(position: Position) -> str:
    """Commit metadata of a position (its ``offset`` is the committed offset itself)."""
    text = json.dumps(
        {
            "v": VERSION,
            "low": position.low_offset,
            "clock": position.clock_us,
            "floor": position.floor_us,
            "evicted": position.evicted_us,
            "passed": list(position.passed[-MAX_PASSED:]),
            "join": position.fingerprint,
        },
        separators=(",", ":"),
    )
    assert len(text) < MAX_BYTES, "barrier ids are bounded, so this is too"
    return text


def decode_position(offset: int, metadata: str) -> Position:
    """The position behind a committed offset. MalformedRecord when the metadata is not ours."""
    try:
        fields = json.loads(metadata)
        if fields["v"] != VERSION:
            raise MalformedRecord.one("metadata.v", fields["v"], str(VERSION))
        position = Position(
            offset,
            int(fields["low"]),
            int(fields["clock"]),
            int(fields["floor"]),
            int(fields["evicted"]),
            tuple(str(name) for name in fields["passed"]),
            str(fields["join"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedRecord.one("metadata", metadata, "what a joiner committed") from error
    if not 0 <= position.low_offset <= offset:
        raise MalformedRecord.one("metadata.low", position.low_offset, f"0 to {offset}")
    return position
