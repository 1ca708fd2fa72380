"""How the leak of a feature follows its speed. Pure.

``item_log_clicks`` moves at each click of its item and at nothing else, and items are clicked more or less
often: one column at many speeds, in one run. Its speed on a sample is measured from the log: clicks of that
item per minute of the run. Rows are those that nobody clicked: a positive's own click moves the column at any
speed. Of them the ones whose item was clicked at all are cut into three classes of about equal size by speed.
Beside them ``category``, which never moves.

An impression moves columns too, but every sample has one of its own between t2 and t6: such columns leak on
every row, however fast they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOVING, STATIC = "item_log_clicks", "category"
CLASSES = ("slow", "medium", "fast")
MINUTE_US = 60_000_000


@dataclass(frozen=True)
class SpeedClass:
    """Rows of one speed. ``updates_per_min``: mean of the class, ``low`` to ``high`` its ends."""

    name: str
    updates_per_min: float
    low: float
    high: float
    rows: int
    leak_rate: float


def item_speeds(
    item_ids: NDArray[np.uint64], clicked_ids: NDArray[np.uint64], run_us: int
) -> NDArray[np.float64]:
    """Clicks per minute of each row's item [n]; ``clicked_ids``: one entry per click of the run."""
    items, counts = np.unique(clicked_ids, return_counts=True)
    if not len(items):
        return np.zeros(len(item_ids))
    at = np.minimum(np.searchsorted(items, item_ids), len(items) - 1)
    return np.where(items[at] == item_ids, counts[at], 0) * (MINUTE_US / max(1, run_us))


def speed_classes(speeds: NDArray[np.float64], leaked: NDArray[np.bool_]) -> list[SpeedClass]:
    """The classes from slow to fast; [] when there are not three different speeds above 0.

    ``speeds`` [n]: updates per minute of the value in each row; ``leaked`` [n]: whether it differs."""
    moving = speeds > 0
    values, counts = np.unique(speeds[moving], return_counts=True)
    if len(values) < len(CLASSES):
        return []
    upto = np.cumsum(counts)
    # A speed belongs to one class; each class has at least one.
    ends = [int(np.abs(upto - upto[-1] * part / len(CLASSES)).argmin()) for part in (1, 2)]
    first = min(ends[0], len(values) - 3)
    second = min(max(ends[1], first + 1), len(values) - 2)
    edges = [0, first + 1, second + 1, len(values)]
    found = []
    for name, start, stop in zip(CLASSES, edges, edges[1:], strict=False):
        rows = moving & (speeds >= values[start]) & (speeds <= values[stop - 1])
        found.append(
            SpeedClass(
                name,
                float(speeds[rows].mean()),
                float(values[start]),
                float(values[stop - 1]),
                int(rows.sum()),
                float(leaked[rows].mean()),
            )
        )
    return found
