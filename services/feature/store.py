"""Reads features from Redis: one MGET for the states of a user, of user x category, and of those items that
are not held near, behind a breaker. A second one only when items that were not held name other categories.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from services.contract import redis_keys
from services.contract.errors import DeadlineSpent, Unavailable
from services.contract.feature_view import FeatureView
from services.feature import metrics
from services.feature.answer import Reading
from services.feature.breaker import Breaker
from services.feature.near_cache import NearCache
from services.feature.program import ITEM, Layout
from services.feature.query import Query
from services.runtime import resp
from services.runtime.redis_reader import RedisReader, Tracking, Values
from services.runtime.resp import Reply
from services.runtime.settings import RedisSettings

_PING_S = 0.1


class FeatureStore:
    """Redis behind a breaker. A timeout below ``telling_s`` is the caller's, not Redis's. ``near``: None
    reads every item each time.
    """

    def __init__(
        self,
        redis: RedisSettings,
        layout: Layout,
        *,
        max_reads: int,
        breaker: Breaker,
        telling_s: float,
        near: NearCache | None = None,
    ) -> None:
        # A broadcast names each key whose prefix is one of these: 8 bytes of item id follow.
        prefixes = tuple(redis_keys.view_prefix(view) for view in layout.groups[ITEM])
        tracking = Tracking(prefixes, self._written, self._forget) if near is not None else None
        self._layout = layout
        self._near = near
        metrics.NEAR_ITEMS.set_function(lambda: float(len(near) if near is not None else 0))
        self._reader = RedisReader(redis, max_reads, tracking)
        self._breaker = breaker
        self._telling_s = telling_s

    async def read(self, query: Query, timeout_s: float) -> Reading:
        """What Redis holds; DeadlineSpent after ``timeout_s``, Unavailable when it is away or skipped."""
        if not self._breaker.allows(time.monotonic()):
            metrics.SKIPPED.inc()
            raise Unavailable("redis: skipped after failures in a row")
        started = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                reading = await self._read(query)
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
        return reading

    async def _read(self, query: Query) -> Reading:
        near = self._near if self._near is not None and self._reader.tracked else self._alone(query)
        reading = Reading(self._layout, query, near, time.monotonic_ns())
        metrics.NEAR_HITS.inc(len(query.item_ids) - len(reading.stale))
        if len(reading.stale):
            metrics.ITEMS_READ.inc(len(reading.stale))
        # The values are taken inside the callback that hears them: before anything that Redis says later.
        await self._reader.ask(resp.mget(reading.first()), reading.take_first)
        more = reading.second()
        if more:
            metrics.SECOND_READS.inc()
            await self._reader.ask(resp.mget(more), reading.take_second)
        self._count(near)
        return reading

    def _count(self, near: NearCache) -> None:
        if near.computed:
            metrics.COMPUTED.inc(near.computed)
        if near.evicted:
            metrics.NEAR_EVICTED.inc(near.evicted)
        near.computed = near.evicted = 0

    def _alone(self, query: Query) -> NearCache:
        return NearCache(self._layout, max(1, len(query.item_ids)), 1.0)

    def nothing(self, query: Query) -> Reading:
        """What is known when Redis cannot be asked."""
        reading = Reading(self._layout, query, self._alone(query), 0)
        reading.nothing()
        return reading

    async def states_of(
        self, wanted: Sequence[tuple[FeatureView, bytes]], timeout_s: float
    ) -> dict[tuple[str, bytes], bytes]:
        """States by (name of the view, entity), read now, those there are; Unavailable, DeadlineSpent."""
        if not wanted:
            return {}
        names = [redis_keys.view_key(view, entity) for view, entity in wanted]
        keys = [(b"", name, len(name)) for name in names]
        try:
            async with asyncio.timeout(timeout_s):
                values: Values = await self._reader.ask(resp.mget(keys))
        except TimeoutError as error:
            raise DeadlineSpent(f"redis: no answer in {timeout_s * 1000:.0f} ms") from error
        except OSError as error:
            raise Unavailable(f"redis: {error!r}") from error
        named = zip(wanted, values, strict=True)
        return {(view.name, entity): value for (view, entity), value in named if value is not None}

    def _written(self, keys: Reply) -> None:
        if self._near is not None:
            metrics.NEAR_DROPPED.inc(self._near.drop(resp.ids_of(keys)))

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
