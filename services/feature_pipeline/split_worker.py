"""Stage 1, the host: origin topics -> feature-events. Written, acknowledged, then committed.

Nothing here has to be exact: a record that is split twice has the same sequence numbers, and the fold
drops the second one. What counts is order: what a partition says is written in the order of its offsets, and
after an error everything from the last committed record is read again.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from rec.events.v1.events_pb2 import FeatureEventBatch
from services.contract import feature_events, topics
from services.contract.errors import Conflict, LoopError, MalformedRecord
from services.contract.repeats import REPEAT_WINDOW
from services.feature_pipeline import metrics
from services.feature_pipeline.catalog import Catalog
from services.feature_pipeline.dead_letters import reject
from services.feature_pipeline.repartition import Splitter
from services.feature_pipeline.settings import FeaturePipelineSettings
from services.runtime.kafka_consumer import ConsumerRecord, GroupReader, Records, TopicPartition
from services.runtime.kafka_producer import Producer

ORIGINS = (topics.IMPRESSIONS.name, topics.ACTIONS.name, topics.CATALOG.name)
_IDLE_MS = 200


def in_order_of_append(found: Records) -> Iterator[tuple[TopicPartition, ConsumerRecord]]:
    """The records of several partitions as they came, each partition's in the order of its offsets: so that
    states are seldom ahead by one partition and behind by another. Nothing depends on it."""
    streams = ([(where, record) for record in records] for where, records in found.items())
    return heapq.merge(*streams, key=lambda one: one[1].timestamp)


class SplitWorker:
    """``run`` in a guarded task, after the catalogue has been loaded."""

    def __init__(self, settings: FeaturePipelineSettings, catalog: Catalog, producer: Producer) -> None:
        self._settings = settings
        self._catalog = catalog
        self._producer = producer
        self.reader = GroupReader(
            settings.kafka,
            f"{settings.name} split",
            feature_events.SPLIT_GROUP,
            ORIGINS,
            on_assigned=self._assigned,
            on_revoked=self._revoked,
        )
        self._splitters: dict[TopicPartition, Splitter] = {}
        # Next offset after the last acknowledged record; records below it are only remembered.
        self._done: dict[TopicPartition, int] = {}
        self._committed_at = 0.0
        self._batches: defaultdict[int, FeatureEventBatch] = defaultdict(FeatureEventBatch)
        self._sizes: Counter[int] = Counter()
        self._in_flight: list[asyncio.Future[Any]] = []
        self.watermarks: dict[TopicPartition, int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._start_new()
                found = await self.reader.poll(_IDLE_MS, self._settings.split_records)
                await self._round(found)
                await self._commit()
            except LoopError as error:
                metrics.SPLIT_RETRIES.inc()
                metrics.log.warning("split: reading again", error=str(error))
                # The splitters have seen events that were not acknowledged: all of them begin anew.
                self._forget(set(self._splitters))
                self._batches.clear()
                self._sizes.clear()
                self._in_flight = []
                await asyncio.sleep(self._settings.retry_ms / 1000)
                continue
            if found:
                await asyncio.sleep(self._settings.split_pause_ms / 1000)

    async def _round(self, found: Records) -> None:
        # What has not been started will be read again once it has been.
        ours = {where: records for where, records in found.items() if where in self._splitters}
        known = {where: (self._splitters[where], self._done[where]) for where in ours}
        for where, record in in_order_of_append(ours):
            splitter, done = known[where]
            if record.offset < done:
                splitter.remember(record.offset, record.value)
                continue
            self._split_one(where, splitter, record)
            metrics.RECORDS.labels(where.topic).inc()
            if len(self._in_flight) >= self._settings.max_batches_in_flight:
                await self._acknowledged()
        await self._acknowledged()
        for where, records in ours.items():
            if where in self._done:
                self._done[where] = max(self._done[where], records[-1].offset + 1)

    def _split_one(self, where: TopicPartition, splitter: Splitter, record: ConsumerRecord) -> None:
        try:
            split = splitter.split(record.offset, record.value)
        except MalformedRecord as error:
            self._in_flight.append(reject(self._producer, record, error))
            return
        if split.repeat:
            metrics.DUPLICATES.labels(where.topic).inc()
        if split.event_us is not None:
            self.watermarks[where] = max(self.watermarks.get(where, split.event_us), split.event_us)
        for partition, event in split.writes:
            self._batches[partition].events.append(event)
            size = feature_events.size_of(event)
            metrics.PARTS.inc(size)
            self._sizes[partition] += size
            if self._sizes[partition] >= self._settings.batch_parts:
                self._send(partition)

    def _send(self, partition: int) -> None:
        batch = self._batches.pop(partition)
        del self._sizes[partition]
        value = batch.SerializeToString()
        sent = self._producer.send_nowait(topics.FEATURE_EVENTS.name, value, partition=partition)
        self._in_flight.append(sent)

    async def _acknowledged(self) -> None:
        for partition in list(self._batches):
            self._send(partition)
        waiting, self._in_flight = self._in_flight, []
        if waiting:
            await asyncio.gather(*waiting)

    async def _commit(self, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._committed_at < self._settings.split_commit_ms / 1000:
            return
        self._committed_at = now
        owned = self.reader.assigned()
        offsets = {where: offset for where, offset in self._done.items() if where in owned}
        if offsets:
            try:
                await self.reader.commit(offsets)
            except Conflict as error:  # the partitions have moved on; whoever has them reads these again
                metrics.log.info("commit refused", error=str(error))

    async def _start_new(self) -> None:
        for where in self.reader.assigned() - set(self._splitters):
            await self._start(where)

    async def _start(self, where: TopicPartition) -> None:
        """Reads from REPEAT_WINDOW before the committed offset, to know repeats; writes from there on."""
        committed = await self.reader.committed(where)
        beginning = (await self.reader.beginning_offsets([where]))[where]
        end = (await self.reader.end_offsets([where]))[where]
        if committed is not None and committed > end:
            metrics.log.error("split: the log is shorter than what was read of it", partition=str(where))
            committed = None
        if where not in self.reader.assigned():
            return
        done = max(committed or 0, beginning)
        window = 0 if where.topic == topics.CATALOG.name else REPEAT_WINDOW
        self._splitters[where] = Splitter(where.topic, where.partition, self._catalog.category_of)
        self._done[where] = done
        self.reader.seek(where, max(beginning, done - window))

    async def _assigned(self, partitions: set[TopicPartition]) -> None:
        self._forget(partitions)

    async def _revoked(self, partitions: set[TopicPartition]) -> None:
        try:
            await self._commit(force=True)
        except LoopError as error:  # whoever gets them reads a little more again
            metrics.log.warning("split: not committed before the partitions went", error=str(error))
        self._forget(partitions)

    def _forget(self, partitions: set[TopicPartition]) -> None:
        for where in partitions:
            self._splitters.pop(where, None)
            self._done.pop(where, None)
