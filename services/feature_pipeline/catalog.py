"""The category of each item, from the whole catalogue: read to its end before any event, then tailed."""

from __future__ import annotations

import asyncio

from services.contract import topics
from services.contract.errors import LoopError, MalformedRecord, NotFound
from services.feature_pipeline import metrics
from services.feature_pipeline.repartition import decode_item
from services.runtime.kafka_consumer import LogReader

_POLL_MS = 200
_RECORDS = 5_000


class Catalog:
    """Every replica reads all of it, without a group. An item that is not known yet has category 0."""

    def __init__(self, reader: LogReader, max_items: int, retry_s: float) -> None:
        self._reader = reader
        self._max_items = max_items
        self._retry_s = retry_s
        self._categories: dict[int, int] = {}
        metrics.CATALOG.set_function(lambda: float(len(self._categories)))

    def __len__(self) -> int:
        return len(self._categories)

    def category_of(self, item_id: int) -> int:
        """0 = unknown (counted)."""
        category = self._categories.get(item_id)
        if category is None:
            metrics.UNKNOWN_CATEGORY.inc()
            return 0
        return category

    async def load(self) -> None:
        """Reads what is there now."""
        partitions = await self._reader.partitions(topics.CATALOG.name)
        self._reader.assign(await self._reader.beginning_offsets(partitions))
        ends = await self._reader.end_offsets(partitions)
        for where, end in ends.items():
            while await self._reader.position(where) < end:
                await self._poll()

    async def tail(self) -> None:
        """Follows until cancelled."""
        while True:
            try:
                await self._poll()
            except NotFound:  # compacted away under a slow reader: all of it again
                await self.load()
            except LoopError as error:
                metrics.log.warning("catalogue unreachable", error=str(error))
                await asyncio.sleep(self._retry_s)

    async def _poll(self) -> None:
        for records in (await self._reader.poll(_POLL_MS, _RECORDS)).values():
            for record in records:
                self._take(record.value)

    def _take(self, value: bytes | None) -> None:
        try:
            item = decode_item(value)
        except MalformedRecord:  # stage 1 writes the dead letter
            return
        if item.item_id not in self._categories and len(self._categories) >= self._max_items:
            metrics.CATALOG_FULL.inc()
            return
        self._categories[item.item_id] = item.category
