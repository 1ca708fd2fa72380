"""Publishes the catalogue as tables of batch features (contract.batch_view).

Reads the ``catalog`` topic to its end, and from then on what is new in it. Partition n + 1 is created
exclusively: of two publishers one wins, and the other goes on from there. A catalogue that has not changed is
not published again.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from rec.events.v1.events_pb2 import BatchView, Item
from services.contract import batch_view, times, topics, view_store
from services.contract.batch_view import VERSION, VIEW
from services.contract.errors import LoopError, NotFound
from services.contract.lake_store import LakeStore
from services.lake import metrics
from services.runtime.kafka_consumer import ConsumerRecord, LogReader, TopicPartition

_CATALOG = TopicPartition(topics.CATALOG.name, 0)
_POLL_MS = 200
_MAX_RECORDS = 5_000


@dataclass(frozen=True)
class Published:
    """What one publication did: ``new`` is False when the newest partition says it all already; ``partition``
    is None when the catalogue is empty."""

    view: str
    version: int
    partition: int | None
    items: int
    new: bool
    expired: tuple[int, ...] = ()


class ViewPublisher:
    """Needs a started reader of its own."""

    def __init__(self, store: LakeStore, reader: LogReader, retention_s: float) -> None:
        self._store = store
        self._reader = reader
        self._retention_s = retention_s
        self._items: dict[bytes, tuple[int, int, int]] = {}
        self._next_offset: int | None = None

    async def publish(self) -> Published:
        """Unavailable, NotFound: Kafka. OSError: the store. FileExistsError: another publisher was faster."""
        await self._read_on()
        made = await asyncio.to_thread(self._write)
        if made.new:
            metrics.VIEWS.labels("published").inc()
            metrics.VIEW_ITEMS.set(made.items)
        return made

    async def run(self, interval_s: float) -> None:
        """Publishes every ``interval_s`` until cancelled; what fails is tried again then."""
        while True:
            try:
                await self.publish()
            except (LoopError, OSError) as error:
                metrics.VIEWS.labels("failed").inc()
                metrics.log.warning("batch features not published", error=repr(error))
            await asyncio.sleep(interval_s)

    async def _read_on(self) -> None:
        end = (await self._reader.end_offsets([_CATALOG]))[_CATALOG]
        if self._next_offset is None:
            self._next_offset = (await self._reader.beginning_offsets([_CATALOG]))[_CATALOG]
            self._reader.assign({_CATALOG: self._next_offset})
        try:
            while self._next_offset < end:
                for record in (await self._reader.poll(_POLL_MS, _MAX_RECORDS)).get(_CATALOG, []):
                    self._take(record)
                self._next_offset = await self._reader.position(_CATALOG)
        except NotFound:  # the log was cut: from its beginning again
            self._next_offset = None
            raise

    def _take(self, record: ConsumerRecord) -> None:
        if record.key is None:
            metrics.BAD.labels("catalog").inc()
        elif record.value is None:
            self._items.pop(record.key, None)
        else:
            try:
                item = Item.FromString(record.value)
            except DecodeError:
                # Recall, which reads the same topic, makes a dead letter of it.
                metrics.BAD.labels("catalog").inc()
                return
            self._items[record.key] = (item.item_id, item.category, times.to_us(item.created_at))

    def _write(self) -> Published:
        store, count = self._store, len(self._items)
        newest = max(view_store.partitions(store), default=0)
        if not count:
            return Published(VIEW, VERSION, newest or None, 0, False)
        # A key is its item's id; should two keys claim one, the later stands.
        by_id = {row[0]: row for row in self._items.values()}
        table = batch_view.table(newest + 1, by_id.values())
        new = not newest or self._digest(newest) != table.digest()
        if new:
            view_store.publish(store, table)
        expired = view_store.expire(store, self._retention_s, time.time())
        return Published(VIEW, VERSION, newest + new, len(by_id), new, tuple(expired))

    def _digest(self, partition: int) -> int | None:
        """Of a published table; None when it cannot be read."""
        try:
            return view_store.read(
                self._store, BatchView(view=VIEW, version=VERSION, partition=partition)
            ).digest()
        except LoopError:
            return None
