"""How the leak of a feature follows its speed. Pure.

``item_activity_clicks`` moves with the clicks of its item, and items are clicked more or less often: one
column at many speeds, in one run. Its speed on a sample is measured from the log: clicks of that item per
minute of the run. Rows are those that nobody clicked: a positive's own click moves the column at any speed.
Beside them ``item_catalogue_category``, which never moves. Rows of items that were unknown when they were
scored are left out of both: a newborn's columns all go from their defaults to what they are.

Clicks at random moments, u per minute, come in a time of d minutes with probability 1 - exp(-u d): the leak
to be expected of a value that is read d later. Rows whose item was clicked at all are cut into three classes
at thirds of the largest one; cut by number of rows, popular items would fill two classes that always leak.

An impression moves columns too, but every sample has one of its own between t2 and t6: such columns leak on
every row, however fast they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOVING, STATIC = "item_activity_clicks", "item_catalogue_category"
CLASSES = ("slow", "medium", "fast")
MINUTE_US = 60_000_000


@dataclass(frozen=True)
class SpeedClass:
    """Rows of one speed. ``updates_per_min``: mean of the class, ``low`` to ``high`` its ends;
    ``expected_leak_rate``: of clicks at random moments."""

    name: str
    updates_per_min: float
    low: float
    high: float
    rows: int
    leak_rate: float
    expected_leak_rate: float


def item_speeds(
    item_ids: NDArray[np.uint64], clicked_ids: NDArray[np.uint64], run_us: int
) -> NDArray[np.float64]:
    """Clicks per minute of each row's item [n]; ``clicked_ids``: one entry per click of the run."""
    items, counts = np.unique(clicked_ids, return_counts=True)
    if not len(items):
        return np.zeros(len(item_ids))
    at = np.minimum(np.searchsorted(items, item_ids), len(items) - 1)
    return np.where(items[at] == item_ids, counts[at], 0) * (MINUTE_US / max(1, run_us))


def speed_classes(speeds: NDArray[np.float64], leaked: NDArray[np.bool_], delay_us: int) -> list[SpeedClass]:
    """The classes from slow to fast; [] when there are not three different speeds above 0.

    ``speeds`` [n]: updates per minute of the value in each row; ``leaked`` [n]: whether it differs;
    ``delay_us``: event time between the two readings."""
    values = np.unique(speeds[speeds > 0])
    if len(values) < len(CLASSES):
        return []
    expected = _expected(values, delay_us)
    ends = np.searchsorted(expected, expected[-1] * np.array([1, 2]) / len(CLASSES), side="right")
    # A speed belongs to one class, and each class has at least one.
    second = min(max(int(ends[1]), 2), len(values) - 1)
    edges = [0, min(max(int(ends[0]), 1), second - 1), second, len(values)]
    found = []
    for name, start, stop in zip(CLASSES, edges, edges[1:], strict=False):
        low, high = values[start], values[stop - 1]
        rows = (speeds >= low) & (speeds <= high)
        found.append(
            SpeedClass(
                name,
                float(speeds[rows].mean()),
                float(low),
                float(high),
                int(rows.sum()),
                float(leaked[rows].mean()),
                float(_expected(speeds[rows], delay_us).mean()),
            )
        )
    return found


def _expected(speeds: NDArray[np.float64], delay_us: int) -> NDArray[np.float64]:
    return -np.expm1(-speeds * (delay_us / MINUTE_US))
