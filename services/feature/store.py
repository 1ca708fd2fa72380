"""Reads features from Redis: one MGET for a user and its items, behind a breaker."""

from __future__ import annotations

import asyncio
import time

from services.contract import redis_keys
from services.contract.errors import DeadlineSpent, Unavailable
from services.contract.feature_layout import ITEM_BYTES
from services.feature import metrics, resp
from services.feature.answer import Stored
from services.feature.breaker import Breaker
from services.feature.query import Query
from services.feature.redis_reader import RedisReader

_NO_ITEM = bytes(ITEM_BYTES)
_PING_S = 0.1


class FeatureStore:
    """Redis behind a breaker. A timeout below ``telling_s`` is the caller's, not Redis's."""

    def __init__(self, reader: RedisReader, breaker: Breaker, telling_s: float) -> None:
        self._reader = reader
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
        keys = (
            redis_keys.user_key(query.user_id),
            redis_keys.GLOBAL_IMPRESSIONS_KEY,
            redis_keys.GLOBAL_CLICKS_KEY,
        )
        request = resp.mget(keys, redis_keys.ITEM_PREFIX, query.packed_ids)
        user, impressions, clicks, *items = await self._reader.ask(request)
        joined = b"".join([_NO_ITEM if v is None or len(v) != ITEM_BYTES else v for v in items])
        return Stored(user, joined, int(impressions or 0), int(clicks or 0))

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
