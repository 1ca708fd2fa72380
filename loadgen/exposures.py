"""What each user has been shown lately: the memory behind fatigue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MEMORY = 30


class Exposures:
    """The last MEMORY shown items of each user, as a ring per user."""

    def __init__(self, users: int) -> None:
        self._ring = np.full((users, MEMORY), -1, np.int32)
        self._next = np.zeros(users, np.int64)

    def count(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.int64]:
        """How often items [n, k] are among what users [n] were shown: [n, k]."""
        self._grow(int(users.max(initial=-1)) + 1)
        return (self._ring[users][:, :, None] == items[:, None, :]).sum(axis=1)

    def add(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> None:
        """Items [n, k] have been shown to users [n]; of a user that stands there twice the last row stays."""
        self._grow(int(users.max(initial=-1)) + 1)
        shown = items.shape[1]
        place = (self._next[users][:, None] + np.arange(shown)) % MEMORY
        self._ring[users[:, None], place] = items
        self._next[users] += shown

    def _grow(self, users: int) -> None:
        more = users - len(self._next)
        if more > 0:
            more = max(more, len(self._next))
            self._ring = np.concatenate([self._ring, np.full((more, MEMORY), -1, np.int32)])
            self._next = np.concatenate([self._next, np.zeros(more, np.int64)])
