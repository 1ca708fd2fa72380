"""Work on a thread beside those that serve, for a share of the time at most."""

from __future__ import annotations

import threading
import time

from services.contract.errors import Unavailable

# Shorter naps cost more than they give.
_PIECE_S = 0.002


class Throttle:
    """Called between two small pieces of work, it sleeps so that the calling thread computes for ``share`` of
    the time; 1 = it never sleeps. For one thread; another one may ``stop`` it."""

    def __init__(self, share: float) -> None:
        self._nap = 1 / share - 1
        # CPU time of the thread that was slept for.
        self._paid_s: float | None = None
        self._stopped = threading.Event()

    def stop(self) -> None:
        """What is worked for is no longer wanted: the next call, or the one that sleeps now, ends it."""
        self._stopped.set()

    def __call__(self) -> None:
        """Unavailable once stopped."""
        now_s = time.thread_time()
        if self._paid_s is None:
            self._paid_s = now_s
        worked_s = now_s - self._paid_s
        if self._nap and worked_s >= _PIECE_S:
            self._stopped.wait(worked_s * self._nap)
            self._paid_s = now_s
        if self._stopped.is_set():
            raise Unavailable("no longer wanted")
