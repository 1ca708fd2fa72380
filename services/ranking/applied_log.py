"""What was applied lately, for everyone who watches: one ring, and a cursor per watcher.

The ring is the bound of every watcher's queue: one that falls behind it is cut off with Overloaded, and never
silently skips. Written and read on the event loop only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from rec.v1 import ranking_pb2
from services.contract.errors import Overloaded

KEEP = 10_000
MAX_WATCHERS = 64


class AppliedLog:
    """A ring of WatchAppliedResponse."""

    def __init__(self, keep: int = KEEP, max_watchers: int = MAX_WATCHERS) -> None:
        self._ring: deque[ranking_pb2.WatchAppliedResponse] = deque(maxlen=keep)
        self._end = 0
        self._watchers = 0
        self._max_watchers = max_watchers
        self._news = asyncio.Event()

    def append(self, applied: ranking_pb2.WatchAppliedResponse) -> None:
        """Adds an entry and wakes the watchers."""
        self._ring.append(applied)
        self._end += 1
        self._news.set()
        self._news = asyncio.Event()

    async def watch(self, arm: str = "") -> AsyncIterator[ranking_pb2.WatchAppliedResponse]:
        """Everything remembered, then everything new, of one arm or (empty) of all.

        Raises Overloaded when there are too many watchers, or when this one has fallen behind the ring.
        """
        if self._watchers >= self._max_watchers:
            raise Overloaded(f"{self._watchers} watchers; at most {self._max_watchers} are allowed")
        self._watchers += 1
        cursor = self._end - len(self._ring)
        try:
            while True:
                while cursor < self._end:
                    oldest = self._end - len(self._ring)
                    if cursor < oldest:
                        raise Overloaded(f"watcher too slow: {oldest - cursor} entries were forgotten unread")
                    entry = self._ring[cursor - oldest]
                    cursor += 1
                    if not arm or entry.arm == arm:
                        yield entry
                await self._news.wait()
        finally:
            self._watchers -= 1
