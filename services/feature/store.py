"""Reads the states of a request from Redis, behind a breaker: what the item table does not hold, the user's,
and those of the candidates' categories. One MGET while the table knows every candidate; a second one when the
categories come with the first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.contract.errors import DeadlineSpent, Unavailable
from services.contract.view_plan import NONE_US
from services.feature import metrics, resp
from services.feature.breaker import Breaker
from services.feature.evaluate import Categories, States, categories, category_entities
from services.feature.item_table import Items, ItemTable
from services.feature.layout import Layout
from services.feature.query import Query
from services.feature.redis_reader import RedisReader, Tracking, Values
from services.runtime.settings import RedisSettings

_PING_S = 0.1
_ID_BYTES = 8


@dataclass(frozen=True)
class Stored:
    """What is known of one request."""

    items: Items
    categories: Categories
    states: States


def nothing(layout: Layout, query: Query) -> Stored:
    """What is known when Redis cannot be asked."""
    n = len(query.item_ids)
    rows = np.tile(layout.feature_set.item_defaults, (n, 1))
    items = Items(rows, np.ones((n, len(layout.items)), bool), np.full(n, NONE_US))
    found = categories(layout, items)
    none: list[bytes | None] = [None] * len(found.distinct)
    return Stored(items, found, States([None] * len(layout.users), [none for _ in layout.categories]))


class FeatureStore:
    """Redis behind a breaker. A timeout below ``telling_s`` is the caller's, not Redis's. ``table``: None
    reads every item each time."""

    def __init__(
        self,
        layout: Layout,
        redis: RedisSettings,
        *,
        max_reads: int,
        breaker: Breaker,
        telling_s: float,
        table: ItemTable | None = None,
    ) -> None:
        prefixes = tuple(placed.prefix for placed in layout.items)
        self._layout = layout
        self._table = table
        self._reader = RedisReader(
            redis, max_reads, Tracking(prefixes, self._written, self._forget) if table is not None else None
        )
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
        items, unknown = self._near(query)
        user_keys = [placed.prefix + query.user_id.to_bytes(8, "little") for placed in self._layout.users]
        if len(unknown):
            users, items = await self._read_items(query, items, unknown, user_keys)
            found = categories(self._layout, items)
            blocks = self._blocks(query, found)
            rest: Values = await self._reader.ask(resp.mget((), blocks)) if blocks else []
        else:
            found = categories(self._layout, items)
            request = resp.mget(user_keys, self._blocks(query, found))
            values: Values = await self._reader.ask(request) if user_keys or self._layout.categories else []
            users, rest = values[: len(user_keys)], values[len(user_keys) :]
        width = len(found.distinct)
        by_category = [rest[at : at + width] for at in range(0, len(rest), width)] if width else []
        return Stored(items, found, States(users, by_category or [[] for _ in self._layout.categories]))

    def _near(self, query: Query) -> tuple[Items, NDArray[np.intp]]:
        """What the table holds (rows of other items mean nothing), and the positions of the others."""
        table, n = self._table, len(query.item_ids)
        if table is None or not self._reader.tracked or not n:
            return nothing(self._layout, query).items, np.arange(n)
        places, unknown = table.find(query.item_ids, time.monotonic())
        metrics.NEAR_HITS.inc(n - len(unknown))
        before = table.read_anew
        if not len(unknown):
            items = table.columns(places, query.at_us)
        else:
            items = nothing(self._layout, query).items
            known = np.setdiff1d(np.arange(n), unknown, assume_unique=True)
            _fill(items, known, table.columns(places[known], query.at_us))
        metrics.NEAR_READ_ANEW.inc(table.read_anew - before)
        return items, unknown

    async def _read_items(
        self, query: Query, items: Items, unknown: NDArray[np.intp], user_keys: Sequence[bytes]
    ) -> tuple[Values, Items]:
        wanted = query.item_ids[unknown]
        packed, views = wanted.astype("<u8").tobytes(), self._layout.items
        asked_s = time.monotonic()

        def take(values: Values) -> Values:
            """Runs where the reply is heard, so that no later word about a written key comes in between."""
            users, rest = values[: len(user_keys)], values[len(user_keys) :]
            of_views = [rest[at : at + len(wanted)] for at in range(0, len(rest), len(wanted))]
            # The connection may have begun to track while it was opened for this very request.
            table = self._table if self._table is not None and self._reader.tracked else None
            if table is None:
                table = ItemTable(self._layout, len(wanted), 1.0)
            evicted = table.evicted
            places = table.put(wanted.tolist(), of_views, asked_s)
            if table is self._table:
                metrics.NEAR_EVICTED.inc(table.evicted - evicted)
                metrics.NEAR_ITEMS.set(len(table))
            _fill(items, unknown, table.columns(places, query.at_us))
            return users

        metrics.ITEMS_READ.inc(len(wanted))
        request = resp.mget(user_keys, [(placed.prefix, packed, _ID_BYTES) for placed in views])
        users: Values = await self._reader.ask(request, take)
        return users, items

    def _blocks(self, query: Query, found: Categories) -> list[tuple[bytes, bytes, int]]:
        if not len(found.distinct):
            return []
        return [
            (placed.prefix, category_entities(placed, query.user_id, found), _ID_BYTES * len(placed.view.key))
            for placed in self._layout.categories
        ]

    def _written(self, keys: list[bytes]) -> None:
        if self._table is not None:
            ids = np.frombuffer(b"".join(key[-_ID_BYTES:] for key in keys if len(key) > _ID_BYTES), "<u8")
            metrics.NEAR_DROPPED.inc(self._table.drop(ids.tolist()))

    def _forget(self) -> None:
        if self._table is not None:
            metrics.NEAR_CLEARED.inc()
            self._table.clear()

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


def _fill(items: Items, at: NDArray[np.intp], part: Items) -> None:
    items.rows[at], items.missing[at], items.newest_us[at] = part.rows, part.missing, part.newest_us
