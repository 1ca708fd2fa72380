"""Waiting until the streaming features contain everything before a barrier.

feature_pipeline writes the barrier's field and announces it on a channel. An announcement only wakes; the
field decides, and it is looked at again now and then, since announcements are lost with connections.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

import redis.asyncio as redis
from redis.exceptions import RedisError

from services.contract import redis_keys
from services.contract.errors import DeadlineSpent, Overloaded
from services.feature import metrics

_RECONNECT_S = 0.2
_LISTEN_S = 30.0


class BarrierWatch:
    """One subscription for all waiting calls. ``run`` in a guarded task."""

    def __init__(self, client: redis.Redis, max_waits: int, poll_s: float) -> None:
        self._client = client
        self._max_waits = max_waits
        self._poll_s = poll_s
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    async def run(self) -> None:
        """Listens until cancelled; a lost connection is opened again."""
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(redis_keys.BARRIER_CHANNEL)
                    while True:
                        message = await channel.get_message(timeout=_LISTEN_S)
                        if message is not None:
                            self._wake(message["data"].decode())
            except (RedisError, OSError) as error:
                metrics.BARRIER_RECONNECTS.inc()
                metrics.log.warning("barrier subscription lost", error=repr(error))
                await asyncio.sleep(_RECONNECT_S)

    def _wake(self, barrier_id: str) -> None:
        for event in self._waiting.get(barrier_id, ()):
            event.set()

    async def wait(self, barrier_id: str, timeout_s: float) -> int:
        """Wall time (us) at which the barrier was passed; DeadlineSpent when it is not passed in time,
        Overloaded when too many wait already.
        """
        if sum(map(len, self._waiting.values())) >= self._max_waits:
            metrics.BARRIER_REFUSED.inc()
            raise Overloaded(f"{self._max_waits} calls wait for barriers already")
        event = asyncio.Event()
        self._waiting[barrier_id].add(event)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._until_passed(barrier_id, event)
        except TimeoutError as error:
            raise DeadlineSpent(f"barrier {barrier_id} was not passed in {timeout_s:.1f} s") from error
        finally:
            self._waiting[barrier_id].discard(event)
            if not self._waiting[barrier_id]:
                del self._waiting[barrier_id]

    async def _until_passed(self, barrier_id: str, event: asyncio.Event) -> int:
        while True:
            event.clear()
            passed_us = await self._passed(barrier_id)
            if passed_us is not None:
                return passed_us
            try:
                async with asyncio.timeout(self._poll_s):
                    await event.wait()
            except TimeoutError:  # look again
                continue

    async def _passed(self, barrier_id: str) -> int | None:
        try:
            value = await self._client.hget(redis_keys.BARRIER_KEY, barrier_id)
        except (RedisError, OSError):  # away: the caller's timeout decides
            return None
        return None if value is None else int(value)
