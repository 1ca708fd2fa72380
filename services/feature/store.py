"""Reads features from Redis: one MGET for a user and those items that the near cache does not hold, behind
a breaker.
"""

from __future__ import annotations

import asyncio
import time

import numpy as np

from services.contract import redis_keys
from services.contract.errors import DeadlineSpent, Unavailable
from services.contract.features import item_records
from services.feature import metrics, resp
from services.feature.answer import Stored
from services.feature.breaker import Breaker
from services.feature.near_cache import NearCache
from services.feature.query import Query
from services.feature.redis_reader import RedisReader, Tracking, Values
from services.runtime.settings import RedisSettings

_PING_S = 0.1
_COUNT_KEYS = (redis_keys.GLOBAL_IMPRESSIONS_KEY, redis_keys.GLOBAL_CLICKS_KEY)


class FeatureStore:
    """Redis behind a breaker. A timeout below ``telling_s`` is the caller's, not Redis's. ``near``: None
    reads every item each time.
    """

    def __init__(
        self,
        redis: RedisSettings,
        *,
        max_reads: int,
        breaker: Breaker,
        telling_s: float,
        near: NearCache | None = None,
    ) -> None:
        tracking = Tracking(redis_keys.ITEM_PREFIX, self._written, self._forget) if near is not None else None
        self._near = near
        self._reader = RedisReader(redis, max_reads, tracking)
        self._breaker = breaker
        self._telling_s = telling_s

    async def read(self, query: Query, timeout_s: float) -> Stored:
        """What Redis holds; DeadlineSpent after ``timeout_s``, Unavailable when it is away or skipped."""
        if not self._breaker.allows(time.monotonic()):
            metrics.SKIPPED.inc()
            raise Unavailable("redis: skipped after failures in a row")
        started = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                stored = await self._read(query)
        except TimeoutError as error:
            if timeout_s >= self._telling_s:
                self._failed()
                self._reader.drop("no answer in time")
            raise DeadlineSpent(f"redis: no answer in {timeout_s * 1000:.0f} ms") from error
        except OSError as error:
            self._failed()
            raise Unavailable(f"redis: {error!r}") from error
        finally:
            metrics.STORE_SECONDS.observe(time.monotonic() - started)
        self._breaker.succeeded()
        return stored

    async def _read(self, query: Query) -> Stored:
        now_s = time.monotonic()
        if self._near is not None and self._reader.tracked:
            rows, unknown = self._near.look(query.item_ids, now_s)
            wanted = query.item_ids[unknown]
            metrics.NEAR_HITS.inc(len(rows) - len(wanted))
        else:
            rows, unknown, wanted = None, None, query.item_ids

        def take(values: Values) -> Stored:
            user, impressions, clicks, *items = values
            read = item_records(items)
            # The connection may have begun to track while it was opened for this very request.
            if self._near is not None and self._reader.tracked:
                metrics.NEAR_EVICTED.inc(self._near.put(wanted.tolist(), read, now_s))
                metrics.NEAR_ITEMS.set(len(self._near))
            if rows is not None:
                rows[unknown] = read
                read = rows
            return Stored(user, read, int(impressions or 0), int(clicks or 0))

        keys = (redis_keys.user_key(query.user_id), *_COUNT_KEYS)
        request = resp.mget(keys, redis_keys.ITEM_PREFIX, wanted.astype("<u8").tobytes())
        metrics.ITEMS_READ.inc(len(wanted))
        stored: Stored = await self._reader.ask(request, take)
        return stored

    def _written(self, keys: list[bytes]) -> None:
        if self._near is not None:
            ids = np.frombuffer(b"".join(key for key in keys if len(key) == 8), "<u8")
            metrics.NEAR_DROPPED.inc(self._near.drop(ids.tolist()))

    def _forget(self) -> None:
        if self._near is not None:
            metrics.NEAR_CLEARED.inc()
            self._near.clear()

    async def fence(self) -> None:
        """Returns when nothing older than what Redis held before this call will be answered."""
        try:
            # What Redis said about written keys before its answer has been heard when the answer comes.
            await self._reader.ask(resp.command(b"PING"))
        except OSError:
            self._forget()

    async def close(self) -> None:
        """Closes the connection."""
        await self._reader.close()

    def _failed(self) -> None:
        if self._breaker.failed(time.monotonic()):
            metrics.OPENED.inc()
            metrics.log.warning("redis is skipped for a while")

    async def reachable(self, wait_s: float) -> bool:
        """Whether Redis answers within ``wait_s``."""
        deadline = time.monotonic() + wait_s
        while True:
            try:
                async with asyncio.timeout(max(_PING_S, deadline - time.monotonic())):
                    await self._reader.ask(resp.command(b"PING"))
                return True
            except OSError:  # TimeoutError is one
                if time.monotonic() > deadline:
                    return False
            await asyncio.sleep(_PING_S)
