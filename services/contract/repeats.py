"""Which event of a log is a client's second try: what the split and the lake's reading both leave out.

An event is a repeat iff the same event id stands on one of the REPEAT_WINDOW offsets before it in its own
partition (a second try carries the same id and, by its key, goes to the same partition). So it is a function
of the log alone, and whoever begins to read REPEAT_WINDOW offsets earlier knows every repeat from there on.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# More than a minute of traffic of one partition, while clients retry within seconds.
REPEAT_WINDOW = 5_000


class SeenEvents:
    """The event ids on the last ``window`` offsets of one partition, read in the order of offsets."""

    def __init__(self, window: int = REPEAT_WINDOW) -> None:
        self._window = window
        # Where an id stood last; the oldest first.
        self._last: OrderedDict[str, int] = OrderedDict()

    def take(self, offset: int, event_id: str) -> bool:
        """Takes note of an event; True when it is a repeat."""
        while self._last and next(iter(self._last.values())) < offset - self._window:
            self._last.popitem(last=False)
        repeat = event_id in self._last
        self._last[event_id] = offset
        self._last.move_to_end(event_id)
        return repeat


def repeats(
    partition: NDArray[np.integer],
    offset: NDArray[np.int64],
    event_ids: pa.Array | pa.ChunkedArray,
    window: int = REPEAT_WINDOW,
) -> NDArray[np.bool_]:
    """Which of n events (any order, each offset once) are repeats: [n]."""
    found = np.zeros(len(offset), bool)
    if not len(offset):
        return found
    code = pc.index_in(event_ids, pc.unique(event_ids)).to_numpy()
    order = np.lexsort((offset, code, partition))
    before, after = order[:-1], order[1:]
    same = (code[before] == code[after]) & (partition[before] == partition[after])
    found[after] = same & (offset[after] - offset[before] <= window)
    return found
