"""How counts become ranked items: popularity over hops of event time, co-clicks of the last clicked items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.recall import kernel
from services.recall.sources import NO_IDS


@dataclass(frozen=True)
class Counted:
    """Items and how often something happened to them: ids [k] uint64, distinct; counts [k] float64."""

    ids: NDArray[np.uint64]
    counts: NDArray[np.float64]


NOTHING = Counted(NO_IDS, np.empty(0, np.float64))


def ranked(
    counted: Sequence[Counted], weights: Sequence[float], *, keep: int, without: Sequence[int] = ()
) -> NDArray[np.uint64]:
    """Items by the weighted sum of their counts, largest first (ties: smaller id first), at most ``keep``.

    weights: of each of ``counted``. without: item ids that are left out.
    """
    if not counted:
        return NO_IDS
    ids = np.concatenate([part.ids for part in counted])
    totals = np.concatenate([part.counts * weight for part, weight in zip(counted, weights, strict=True)])
    if without:
        listed = kernel.absent(ids, np.array(without, np.uint64))
        ids, totals = ids[listed], totals[listed]
    distinct, sums = kernel.summed(ids, totals)
    return distinct[np.lexsort((distinct, -sums))[:keep]]


def hop_weights(hops: int, hop_us: int, half_life_us: int) -> list[float]:
    """The weight of the current hop, the one before it, ...: a click loses half its weight per half-life."""
    return [0.5 ** (age * hop_us / half_life_us) for age in range(hops)]


def recency_weights(items: int) -> list[float]:
    """The weight of the last clicked item, the one before it, ...: 1, 1/2, 1/3, ..."""
    return [1.0 / (age + 1) for age in range(items)]
