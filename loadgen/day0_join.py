"""Day 0's events become samples by the contract's join, one session at a time, in a process of its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.join_events import Source
from services.contract.join_output import Rejected, Sample
from services.contract.join_wire import joined_at, sample_record


@dataclass(frozen=True)
class Joined:
    """SampleRecord bytes in the order of their emission, how many rows they hold, what was rejected."""

    samples: list[bytes]
    rows: int
    rejected: dict[str, int]


def join_session(window_us: int, bound_us: int, sources: list[int], events: list[bytes]) -> Joined:
    """Joins one session whose heartbeats close all its windows: sessions do not depend on one another."""
    task = JoinTask(JoinConfig(window_us=window_us, bound_us=bound_us))
    offsets = [0, 0, 0]
    samples: list[bytes] = []
    rows = 0
    rejected: Counter[str] = Counter()
    for source, raw in zip(sources, events, strict=True):
        said = task.feed(Source(source), offsets[source], raw)
        offsets[source] += 1
        for output in said:
            if isinstance(output, Sample):
                samples.append(sample_record(output.data, joined_at(task.watermark_us)))
                rows += output.rows
            elif isinstance(output, Rejected):
                rejected[output.reason] += 1
    return Joined(samples, rows, dict(rejected))
