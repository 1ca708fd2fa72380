"""How a log is cut for a replay: blocks between barriers of event time, and visits inside them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from loadgen.datasets import Events
from services.contract.times import MICROS


def blocks(events: Events, barrier_s: int) -> Iterator[tuple[range, int]]:
    """(indices of one interval's events, event time in us before which everything has come then): the start
    of the next interval that has events, of the last block its end. Empty intervals are left out."""
    interval = events.timestamps_us // (barrier_s * MICROS)
    edges = np.flatnonzero(np.diff(interval)) + 1
    starts = [0, *edges.tolist()]
    ends = [*edges.tolist(), len(events)]
    nexts = [*interval[edges].tolist(), int(interval[-1]) + 1]
    for start, end, following in zip(starts, ends, nexts, strict=True):
        yield range(start, end), following * barrier_s * MICROS


def visits(events: Events, indices: range) -> list[range]:
    """What one user did in one moment is one request for all its items; an item occurs once in each."""
    found: list[range] = []
    start, items = indices.start, set[str]()
    for index in indices:
        same = (
            events.timestamps_us[index] == events.timestamps_us[start]
            and events.user_keys[index] == events.user_keys[start]
            and events.item_keys[index] not in items
        )
        if not same:
            found.append(range(start, index))
            start, items = index, set()
        items.add(events.item_keys[index])
    return [*found, range(start, indices.stop)]
