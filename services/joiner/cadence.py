"""When a transaction is due. Pure: times come in as seconds of one monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass

NEVER_S = float("inf")


@dataclass(frozen=True)
class Cadence:
    """How long each kind of output may wait, in seconds."""

    positive_s: float
    output_s: float
    offsets_s: float


@dataclass
class Waiting:
    """What has gathered since the last commit: when the first of each kind came (NEVER_S: none)."""

    barrier_s: float = NEVER_S
    positive_s: float = NEVER_S
    output_s: float = NEVER_S
    offsets_s: float = NEVER_S

    def note(
        self, now_s: float, *, output: bool = False, positive: bool = False, barrier: bool = False
    ) -> None:
        """Offsets have moved, with or without outputs."""
        self.offsets_s = min(self.offsets_s, now_s)
        if output:
            self.output_s = min(self.output_s, now_s)
        if positive:
            self.positive_s = min(self.positive_s, now_s)
        if barrier:
            self.barrier_s = min(self.barrier_s, now_s)

    def due_s(self, cadence: Cadence) -> float:
        """When the next transaction must begin; NEVER_S when nothing has changed."""
        return min(
            self.barrier_s,
            self.positive_s + cadence.positive_s,
            self.output_s + cadence.output_s,
            self.offsets_s + cadence.offsets_s,
        )


def inputs_ahead(watermarks: dict[int, int], slack_us: int) -> set[int]:
    """The inputs whose watermark is more than ``slack_us`` above the lowest: they may wait for it."""
    lowest = min(watermarks.values())
    return {source for source, mark in watermarks.items() if mark > lowest + slack_us}
