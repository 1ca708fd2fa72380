"""What to recommend when recall cannot: the items that its last answers proposed.

Two bounded lists, both fed by recall's answers: the popular items of the newest answer (good for
anybody) and the items seen last (the breadth). Empty at a cold start: then there is nothing to recommend.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class FallbackPool:
    """At most ``size`` popular and ``size`` recent items. The event loop owns it."""

    def __init__(self, size: int, refresh_s: float) -> None:
        if size < 1 or refresh_s < 0:
            raise ValueError(f"size={size} (at least 1), refresh_s={refresh_s} (not negative)")
        self._size = size
        self._refresh_s = refresh_s
        self._refresh_at = float("-inf")
        self._popular: NDArray[np.uint64] = np.empty(0, np.uint64)
        # Insertion order = least recently seen first.
        self._recent: dict[int, None] = {}

    def __len__(self) -> int:
        return len(np.union1d(self._popular, np.fromiter(self._recent, np.uint64, len(self._recent))))

    def observe(self, ids: NDArray[np.uint64], popular: NDArray[np.bool_], now: float) -> None:
        """Learns from an answer of recall, best first, at most once per refresh_s: it is the hot path.

        ids: [n]; popular: [n], True where the popular source proposed the item; now: monotonic seconds.
        """
        if now < self._refresh_at or not len(ids):
            return
        self._refresh_at = now + self._refresh_s
        if popular.any():
            self._popular = ids[popular][: self._size].copy()
        # The best item is inserted last, so that it is the most recent one.
        for item_id in reversed(ids[: self._size].tolist()):
            self._recent.pop(item_id, None)
            self._recent[item_id] = None
        for item_id in list(self._recent)[: max(0, len(self._recent) - self._size)]:
            del self._recent[item_id]

    def pick(self, n: int) -> NDArray[np.uint64]:
        """At most n distinct items: the popular ones, then the most recently seen."""
        chosen = dict.fromkeys(self._popular.tolist())
        for item_id in reversed(self._recent):
            if len(chosen) >= n:
                break
            chosen[item_id] = None
        return np.fromiter(chosen, np.uint64, len(chosen))[:n]
