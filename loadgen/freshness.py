"""How long until a click is served: per stage, from the evidence of one run.

    click sent --collect--> acknowledged --join--> sample appended --train--> training step ended
      --publish--> delta appended --apply--> first response whose model contains the sample

All moments are wall microseconds. Freshness is acknowledged -> first response. The label wait
(impression -> click) is the user's own time and stands apart. Pure: arrays in, arrays out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

STAGES = ("collect", "join", "train", "publish", "apply")


@dataclass(frozen=True)
class ClickSample:
    """One clicked row: when its click was sent and acknowledged, and where its sample stands."""

    sent_us: int
    acknowledged_us: int
    joined_us: int
    partition: int
    offset: int


@dataclass(frozen=True)
class Delta:
    """One published delta of the lineage: what it had trained, and when it was appended.

    ``offsets``: partition -> next sample offset to train. ``steps``: (finished_us, offsets) in order.
    """

    sequence: int
    appended_us: int
    offsets: dict[int, int]
    steps: tuple[tuple[int, dict[int, int]], ...]


@dataclass
class Freshness:
    """Seconds per click that reached a response, and how many did not within the run."""

    total_s: list[float] = field(default_factory=list)
    stages_s: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    unserved: int = 0
    # The joiner can append a sample before the client has seen the collector's answer.
    joined_before_acknowledged: int = 0


def quantiles(values: Sequence[float]) -> dict[str, float | None]:
    """{p50, p99} in the unit of the values; None when there are none."""
    if not values:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(np.asarray(values, dtype=np.float64), [50, 99])
    return {"p50": float(p50), "p99": float(p99)}


class FirstServed:
    """The earliest moment of any answer with at least some sequence."""

    def __init__(self, sequences: NDArray[np.int64], moments_us: NDArray[np.int64]) -> None:
        order = np.argsort(sequences, kind="stable")
        self._sequences = sequences[order]
        self._earliest_us = np.minimum.accumulate(moments_us[order][::-1])[::-1]

    def moment_us(self, sequence: int) -> int | None:
        """None when no answer had that sequence or a later one."""
        index = int(np.searchsorted(self._sequences, sequence, side="left"))
        return int(self._earliest_us[index]) if index < len(self._sequences) else None


def measure(
    clicks: Sequence[ClickSample],
    deltas: Sequence[Delta],
    response_sequences: NDArray[np.int64],
    response_us: NDArray[np.int64],
) -> Freshness:
    """Follows each clicked sample to the first response that contains it.

    ``deltas`` in order of sequence; the two response columns are aligned.
    """
    served = FirstServed(response_sequences, response_us)
    partitions = {click.partition for click in clicks}
    covered = {
        partition: np.array([delta.offsets.get(partition, 0) for delta in deltas], dtype=np.int64)
        for partition in partitions
    }
    result = Freshness()
    for click in clicks:
        index = int(np.searchsorted(covered[click.partition], click.offset, side="right"))
        if index == len(deltas):
            result.unserved += 1
            continue
        delta = deltas[index]
        response_at = served.moment_us(delta.sequence)
        if response_at is None:
            result.unserved += 1
            continue
        trained_us = _trained_us(delta, click)
        if click.joined_us < click.acknowledged_us:
            result.joined_before_acknowledged += 1
        moments = (
            click.sent_us,
            click.acknowledged_us,
            max(click.joined_us, click.acknowledged_us),
            trained_us,
            delta.appended_us,
            response_at,
        )
        for stage, start, end in zip(STAGES, moments[:-1], moments[1:], strict=True):
            result.stages_s[stage].append(max(0, end - start) / 1e6)
        result.total_s.append(max(0, response_at - click.acknowledged_us) / 1e6)
    return result


def _trained_us(delta: Delta, click: ClickSample) -> int:
    for finished_us, offsets in delta.steps:
        if offsets.get(click.partition, 0) > click.offset:
            return finished_us
    return delta.appended_us
