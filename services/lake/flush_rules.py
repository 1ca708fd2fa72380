"""What waits for a flush, and when it is due. Pure: times come in as seconds of one monotonic clock."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from services.contract.lake_rows import LogRecord

KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass(frozen=True)
class Limits:
    """When a buffer is due, and how much all of them may hold."""

    records: int
    bytes: int
    age_s: float
    total_bytes: int


@dataclass
class Buffer:
    """Records of one partition, in the order of their offsets."""

    records: list[LogRecord] = field(default_factory=list)
    bytes: int = 0
    since_s: float = 0.0

    def add(self, record: LogRecord, now_s: float) -> None:
        """Takes a record."""
        if not self.records:
            self.since_s = now_s
        self.records.append(record)
        self.bytes += len(record.value or b"")

    def due(self, limits: Limits, now_s: float) -> str:
        """Why it is due; "" when it is not."""
        if not self.records:
            return ""
        if len(self.records) >= limits.records:
            return "records"
        if self.bytes >= limits.bytes:
            return "bytes"
        return "age" if now_s - self.since_s >= limits.age_s else ""


def due(buffers: Mapping[KeyT, Buffer], limits: Limits, now_s: float) -> dict[KeyT, str]:
    """Which buffers to write now and why, in that order: those due by themselves, then the largest until the
    rest is within ``total_bytes``."""
    found = {key: why for key, buffer in buffers.items() if (why := buffer.due(limits, now_s))}
    rest = sorted((key for key in buffers if key not in found), key=lambda key: buffers[key].bytes)
    left = sum(buffers[key].bytes for key in rest)
    while left > limits.total_bytes:
        largest = rest.pop()
        found[largest] = "total"
        left -= buffers[largest].bytes
    return found
