"""Which feature set is answered: the widest that feature-views says is served, made ready aside.

    named set -> the log's end -> a wider set: layout, store with a connection and a cache of its own, kernels
    -> swapped in by one reference -> the store before it ends when nobody can be waiting for it any more

A request reads the reference once, so an answer is of one set. Without Kafka the set known so far is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.contract.errors import InvalidInput
from services.contract.view_growth import GrowingSet
from services.contract.view_registry import FeatureSet
from services.feature import metrics
from services.feature.answer import warm_up
from services.feature.program import Layout
from services.feature.store import FeatureStore
from services.runtime.kafka_tail import LogTail

_CONNECT_S = 1.0


class Serving:
    """``store`` reads for ``features`` (``layout``). ``outlive_s``: as long as a request may take."""

    def __init__(
        self, growing: GrowingSet, open_store: Callable[[Layout], FeatureStore], outlive_s: float
    ) -> None:
        self._growing, self._open, self._outlive_s = growing, open_store, outlive_s
        self._changed = asyncio.Event()
        self._before: list[FeatureStore] = []
        self.caught_up = asyncio.Event()
        self.features: FeatureSet = growing.newest
        self.layout = Layout(self.features)
        self.store = open_store(self.layout)

    @property
    def name(self) -> str:
        """Of the set."""
        return self._growing.name_of(self.features.schema_hash) or ""

    async def follow(self, tail: LogTail) -> None:
        """Serves what the log says, until cancelled; ``caught_up`` once it has been read to its end."""
        async with asyncio.TaskGroup() as group:
            await tail.until_read()
            await self._grow(group)
            self.caught_up.set()
            group.create_task(tail.run(self._changed.set))
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._grow(group)

    async def _grow(self, group: asyncio.TaskGroup) -> None:
        wanted = self._growing.newest
        if wanted.schema_hash == self.features.schema_hash:
            return
        try:
            layout = await asyncio.to_thread(_ready, wanted)
        except InvalidInput as error:
            metrics.SETS.labels("refused").inc()
            metrics.log.error("set cannot be served", set=self._growing.newest_name, error=str(error))
            return
        store = self._open(layout)
        # So that the first request need not wait for it; without Redis there are defaults.
        await store.reachable(_CONNECT_S)
        self._before.append(self.store)
        group.create_task(self._end(self.store))
        self.features, self.layout, self.store = wanted, layout, store
        metrics.SETS.labels("served").inc()
        metrics.log.info("serving", set=self.name, schema=f"{wanted.schema_hash:016x}")

    async def _end(self, store: FeatureStore) -> None:
        await asyncio.sleep(self._outlive_s)
        self._before.remove(store)
        await store.close()

    async def close(self) -> None:
        """Closes what is open."""
        for store in (*self._before, self.store):
            await store.close()


def _ready(wanted: FeatureSet) -> Layout:
    layout = Layout(wanted)
    warm_up(layout)
    return layout
