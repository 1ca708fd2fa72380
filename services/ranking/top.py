"""The n best of many scores, the same on every replica."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best(scores: NDArray[np.float32], item_ids: NDArray[np.uint64], n: int) -> NDArray[np.int64]:
    """Indices of the ``n`` best candidates (all, when there are fewer), best first.

    Ordered by (score descending, item id ascending), also across the cut: argpartition alone would
    choose among equal scores by their place in the request. ``scores`` must hold no NaN.
    """
    count = len(scores)
    if n >= count:
        chosen = np.arange(count)
    else:
        worst_kept = np.partition(scores, count - n)[count - n]
        chosen = np.flatnonzero(scores >= worst_kept)
    order = np.lexsort((item_ids[chosen], -scores[chosen]))
    return chosen[order[:n]]
