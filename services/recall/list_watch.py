"""How much of the exact answer the lists that are looked into hold; and how many have to be. Pure.

Inside a list a search is exact, so the recall of an answer is the share of the exact answer whose lists are
probed. A check says for each item of an exact answer how many lists come before its own: with that the recall
of any number of probes is known, of the last checks together.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

# What is promised, and what is aimed at, so that it is kept between two checks.
PROMISED_RECALL = 0.98
AIMED_RECALL = 0.99
CHECKS = 32
# Beyond this share of the lists a search costs about as much as one through everything.
MAX_SHARE = 0.35


class ListWatch:
    """Of one set of ``lists`` lists. ``probes``: how many are looked into, by the last checks."""

    def __init__(self, lists: int) -> None:
        self._lists = lists
        # By check: the recall of 1, 2, ... probes; and the recall of the answer that was checked.
        self._curves: deque[NDArray[np.float64]] = deque(maxlen=CHECKS)
        self._answers: deque[float] = deque(maxlen=CHECKS)
        self.probes = lists

    def begin(self) -> None:
        """The checks so far were no answers."""
        self._answers.clear()

    def add(self, ranks: NDArray[np.int64]) -> float:
        """A check: by item of an exact answer, the lists before its own. The recall that an answer had with
        the probes of then; as many as the last checks ask for are taken from now on."""
        curve = np.cumsum(np.bincount(ranks, minlength=self._lists)) / len(ranks)
        self._curves.append(curve)
        self._answers.append(float(curve[self.probes - 1]) if self.pays else 1.0)
        mean = np.mean(self._curves, axis=0)
        self.probes = min(int(np.searchsorted(mean, AIMED_RECALL)) + 1, self._lists)
        return self._answers[-1]

    @property
    def recall(self) -> float:
        """Mean of the last answers that were checked; 1.0 before the first."""
        return float(np.mean(self._answers)) if self._answers else 1.0

    @property
    def pays(self) -> bool:
        """Whether so few lists are enough that they are worth it; else everything is looked through."""
        return self.probes <= MAX_SHARE * self._lists
