"""A calendar queue: what is due when. Knows nothing of what it keeps.

A heap of all timers costs a comparison per level and timer; here timers gather unsorted in buckets of some
milliseconds, and a bucket is sorted once, when the time reaches it. Same order as a heap: by time, then in
the order of arming. (R. Brown, "Calendar queues", CACM 1988.)
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T")
# 2^14 us = 16 ms: some tens of timers at a thousand requests a second.
_BUCKET_BITS: Final = 14
# What is done leaves its bucket in strides, not one by one.
_DONE_KEPT: Final = 256


class Timers(Generic[T]):
    """Times are integer microseconds, negative ones included."""

    def __init__(self) -> None:
        self._count = 0
        self._buckets: dict[int, list[tuple[int, int, T]]] = {}
        # The buckets' numbers, as a heap.
        self._numbers: list[int] = []
        # The newest bucket that the time has reached, sorted, and how much of it is done.
        self._open: list[tuple[int, int, T]] = []
        self._done = 0
        self._opened: int | None = None

    def arm(self, due_us: int, what: T) -> None:
        """``what`` is due when the time is above ``due_us``."""
        self._count += 1
        number = due_us >> _BUCKET_BITS
        timer = (due_us, self._count, what)
        if self._opened is not None and number <= self._opened:
            if self._done > _DONE_KEPT:
                del self._open[: self._done]
                self._done = 0
            insort(self._open, timer, self._done)
            return
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = [timer]
            heapq.heappush(self._numbers, number)
        else:
            bucket.append(timer)

    def due(self, now_us: int) -> Iterator[T]:
        """Takes out everything due below ``now_us``, in order; what is armed meanwhile as well."""
        while True:
            while self._done < len(self._open) and self._open[self._done][0] < now_us:
                what = self._open[self._done][2]
                self._done += 1
                yield what
            if (
                self._done < len(self._open)
                or not self._numbers
                or self._numbers[0] << _BUCKET_BITS >= now_us
            ):
                return
            self._opened = heapq.heappop(self._numbers)
            self._open, self._done = sorted(self._buckets.pop(self._opened)), 0

    def keep(self, wanted: Callable[[T], bool]) -> None:
        """Drops every other timer."""
        left = [timer for timer in self._open[self._done :] if wanted(timer[2])]
        buckets = {
            number: [timer for timer in bucket if wanted(timer[2])]
            for number, bucket in self._buckets.items()
        }
        self._open, self._done = left, 0
        self._buckets = {number: bucket for number, bucket in buckets.items() if bucket}
        self._numbers = sorted(self._buckets)
