"""Which barriers the arms' models have passed, and who waits for one.

Written and read on the event loop only. The memory is bounded: a barrier older than the last KEEP of its
arm is forgotten and waiting for it ends in the caller's deadline.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from rec.model.v1 import model_pb2
from services.contract.errors import DeadlineSpent, Overloaded

KEEP = 1_000
MAX_WAITERS = 1_000


@dataclass(frozen=True)
class Passed:
    """The first version that contains everything before a barrier, and the wall time (us) it was applied."""

    model: model_pb2.ModelVersion
    passed_us: int


class Barriers:
    """Barriers by arm."""

    def __init__(self, keep: int = KEEP, max_waiters: int = MAX_WAITERS) -> None:
        self._keep = keep
        self._max_waiters = max_waiters
        self._passed: dict[str, OrderedDict[str, Passed]] = defaultdict(OrderedDict)
        self._waiters: dict[tuple[str, str], set[asyncio.Future[Passed]]] = {}
        self._waiting = 0

    def note(self, arm: str, barrier_ids: Iterable[str], passed: Passed) -> None:
        """Records barriers that ``arm`` has passed and wakes who waits for them."""
        seen = self._passed[arm]
        for barrier_id in barrier_ids:
            seen.setdefault(barrier_id, passed)
            for waiter in self._waiters.pop((arm, barrier_id), ()):
                if not waiter.done():
                    waiter.set_result(seen[barrier_id])
        while len(seen) > self._keep:
            seen.popitem(last=False)

    async def wait(self, arm: str, barrier_id: str, timeout_s: float) -> Passed:
        """Returns when ``arm`` has passed the barrier.

        Raises DeadlineSpent after ``timeout_s``, Overloaded when too many wait.
        """
        if (known := self._passed[arm].get(barrier_id)) is not None:
            return known
        if self._waiting >= self._max_waiters:
            raise Overloaded(f"{self._waiting} calls wait for barriers already")
        waiter: asyncio.Future[Passed] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault((arm, barrier_id), set()).add(waiter)
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except TimeoutError:
            raise DeadlineSpent(f"barrier {barrier_id} has not reached arm {arm}") from None
        finally:
            self._waiting -= 1
            if (left := self._waiters.get((arm, barrier_id))) is not None:
                left.discard(waiter)
                if not left:
                    del self._waiters[arm, barrier_id]
