"""Reads the `catalog` topic from its beginning into the catalogue, and goes on reading.

A record that does not decode, or that stands under another item's key, goes to dead letters and the
reading goes on. A restart reads all of it again: the catalogue is nowhere else, and 100,000 items take a
second.
"""

from __future__ import annotations

import asyncio

from google.protobuf.message import DecodeError

from rec.events.v1.events_pb2 import Item
from services.contract import times, topics
from services.contract.errors import MalformedRecord, Overloaded, Unavailable
from services.recall import metrics
from services.recall.catalogue import Catalogue
from services.recall.tail import Tail
from services.runtime.kafka_consumer import ConsumerRecord, LogReader, TopicPartition
from services.runtime.kafka_producer import Producer

PARTITION = TopicPartition(topics.CATALOG.name, 0)
_POLL_MS = 200


def read_item(key: bytes | None, value: bytes) -> Item:
    """The item of a record; MalformedRecord when it does not decode or its key is not its id."""
    try:
        item = Item.FromString(value)
    except DecodeError as error:
        raise MalformedRecord.one("item", f"{len(value)} bytes", "an Item") from error
    if key != topics.entity_key(item.item_id):
        raise MalformedRecord.one("key", key, "the item's id, 8 bytes little-endian")
    return item


class CatalogFeed:
    """One reader of the one partition; needs a started reader."""

    def __init__(
        self, reader: LogReader, dead_letters: Producer, catalogue: Catalogue, max_records: int
    ) -> None:
        self._tail = Tail(reader, PARTITION, poll_ms=_POLL_MS, max_records=max_records)
        self._dead_letters = dead_letters
        self._catalogue = catalogue

    async def until_end(self) -> None:
        """Returns when everything that stands in the topic now is in the catalogue."""
        end = await self._tail.until_end()
        metrics.log.info("catalogue read", items=len(self._catalogue), offset=end)

    async def run(self) -> None:
        """Reads until cancelled."""
        async for records in self._tail.batches():
            for record in records:
                self._take(record)
            metrics.CATALOGUE.set(len(self._catalogue))

    def _take(self, record: ConsumerRecord) -> None:
        try:
            if record.value is None:
                self._catalogue.withdraw(_key_id(record.key))
                return
            item = read_item(record.key, record.value)
        except MalformedRecord as error:
            self._refuse(record, str(error))
            return
        self._catalogue.put(item.item_id, times.to_us(item.created_at))

    def _refuse(self, record: ConsumerRecord, reason: str) -> None:
        metrics.DEAD_LETTERS.labels(record.topic).inc()
        metrics.log.warning("dead letter", topic=record.topic, offset=record.offset, reason=reason)
        headers = topics.rejection_headers(reason, record.topic, record.partition, record.offset)
        try:
            # Not awaited: the reader must not wait for the producer; what is lost with a crash is read again.
            sent = self._dead_letters.send_nowait(
                topics.DEAD_LETTERS.name, record.value, key=record.key, headers=headers
            )
        except (Overloaded, Unavailable) as error:
            metrics.log.error("dead letter lost", offset=record.offset, error=repr(error))
            return
        sent.add_done_callback(_report)


def _key_id(key: bytes | None) -> int:
    if key is None or len(key) != 8:
        raise MalformedRecord.one("key", key, "an item's id, 8 bytes little-endian")
    return int.from_bytes(key, "little")


def _report(sent: asyncio.Future[object]) -> None:
    if not sent.cancelled() and sent.exception() is not None:
        metrics.log.error("dead letter lost", error=repr(sent.exception()))
