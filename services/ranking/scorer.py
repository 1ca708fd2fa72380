"""The one thread that scores and applies: a bounded queue in front of it.

Jobs run one after another and each to its end, so a request sees one version of every arm: a delta is a job
between two requests. Requests are bounded (``max_queue``); the jobs of the slots are not counted, because
each slot awaits its own before it sends the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from services.contract.errors import Overloaded

T = TypeVar("T")


class Scorer:
    """One executor thread. ``queued`` is the number of requests waiting or running."""

    def __init__(self, max_queue: int) -> None:
        self._max_queue = max_queue
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scorer")
        self.queued = 0

    async def score(self, job: Callable[[], T]) -> T:
        """Runs a request's job; raises Overloaded at once when the queue is full.

        A caller that gives up takes its job out of the queue when it has not begun.
        """
        if self.queued >= self._max_queue:
            raise Overloaded(
                f"{self.queued} requests wait for the scoring thread; the limit is {self._max_queue}"
            )
        self.queued += 1
        future = self._executor.submit(job)
        # The place is free when the thread is done with the job, not when the caller gives up.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave))
        return await asyncio.wrap_future(future)

    async def between_requests(self, job: Callable[[], T]) -> T:
        """Runs a slot's job (apply, digest, swap) in turn with the requests."""
        return await asyncio.wrap_future(self._executor.submit(job))

    def _leave(self) -> None:
        self.queued -= 1

    def close(self) -> None:
        """Waits for the running job and drops the rest."""
        self._executor.shutdown(wait=True, cancel_futures=True)
