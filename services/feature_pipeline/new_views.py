"""Stage 2, views added while it runs: from their start to where the others are (contract.view_backfill).

Between two rounds: a view begins where the partition stands, waits for the states of its history, then reads
feature-events again from there for itself, a slice at a time, until it stands where the others do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from services.contract import topics
from services.contract.errors import Conflict
from services.contract.feature_view import FeatureView
from services.contract.view_backfill import start_key
from services.contract.view_fold import OriginMarks
from services.contract.view_growth import GrowingSet
from services.feature_pipeline import metrics
from services.feature_pipeline.fold_batch import Message, PartitionFold, decode
from services.feature_pipeline.settings import FeaturePipelineSettings
from services.feature_pipeline.state_store import Outcome, StateStore
from services.runtime.kafka_consumer import ConsumerRecord, LogReader, TopicPartition

_CHECK_S = 0.5
# What is asked for is there: the answer comes with the first fetch.
_POLL_MS = 1_000
# Of feature-events, at most; a write takes as many of them as have its events.
_POLL_RECORDS = 500


class Replays:
    """Reads feature-events again, for one view of one partition at a time; they may take turns.

    What was fetched and not used yet is kept, per partition: fetching costs more than folding."""

    def __init__(self, reader: LogReader) -> None:
        self.reader = reader
        self._next: tuple[TopicPartition, int] | None = None
        # (offset from which they are what follows, records).
        self._kept: dict[TopicPartition, tuple[int, list[ConsumerRecord]]] = {}

    async def take(self, where: TopicPartition, offset: int) -> list[ConsumerRecord]:
        """Some records from ``offset`` on; none when Kafka is slow."""
        begins, records = self._kept.pop(where, (-1, []))
        if begins == offset and records:
            return records
        if self._next != (where, offset):
            self.reader.assign({where: offset})
        records = (await self.reader.poll(_POLL_MS, _POLL_RECORDS)).get(where, [])
        self._next = where, records[-1].offset + 1 if records else offset
        return records

    def keep(self, where: TopicPartition, offset: int, records: list[ConsumerRecord]) -> None:
        """Those that follow ``offset`` and were not used."""
        self._kept[where] = offset, records

    def forget(self, where: TopicPartition) -> None:
        """Nobody reads on from there."""
        self._kept.pop(where, None)


@dataclass
class NewView:
    """Of one partition, not live. ``fold`` None: it waits for its history."""

    view: FeatureView
    fold: PartitionFold | None = None


class NewViews:
    """Of one owned partition. ``advance`` between two rounds, and before the first. Raises as the store does,
    and Conflict when the partition has another owner."""

    def __init__(  # noqa: PLR0917
        self,
        settings: FeaturePipelineSettings,
        store: StateStore,
        growing: GrowingSet,
        replays: Replays,
        token: bytes,
        others: PartitionFold,
    ) -> None:
        self._settings, self._store, self._growing, self._replays = settings, store, growing, replays
        self._token, self._others = token, others
        self._where = TopicPartition(topics.FEATURE_EVENTS.name, others.partition)
        self._seen = 0
        self._waiting: list[NewView] = []
        self._checked_at = 0.0

    async def advance(self) -> None:
        """Begins what is new, looks for histories, replays one slice."""
        while self._seen < len(self._growing.views):
            await self._begin(self._growing.views[self._seen])
            self._seen += 1
        now = time.monotonic()
        if now - self._checked_at >= _CHECK_S:
            self._checked_at = now
            for new in list(self._waiting):
                if new.fold is None:
                    await self._look(new)
        for new in self._waiting:
            if new.fold is not None:
                await self._replay(new, new.fold)
                return

    async def _begin(self, view: FeatureView) -> None:
        added = await self._store.begin_view(self._others.partition, self._token, view)
        if added.start.definition_hash != view.definition_hash:
            self._refuse(view, "Redis holds another definition")
        elif added.live:
            self._others.add_view(view)
        else:
            metrics.log.info(
                "view begins", view=view.name, partition=self._others.partition, offset=added.start.offset
            )
            self._waiting.append(NewView(view))

    def _refuse(self, view: FeatureView, why: str) -> None:
        metrics.VIEWS_REFUSED.inc()
        metrics.log.error("added view refused", view=view.name, partition=self._others.partition, reason=why)

    async def _look(self, new: NewView) -> None:
        added = await self._store.added_view(self._others.partition, new.view)
        if added is None:
            raise Conflict(f"{new.view.name}: its start is gone from Redis")
        start = added.start
        if start.filled is None:
            return
        if start.offset < (await self._replays.reader.beginning_offsets([self._where]))[self._where]:
            # Its history came after feature-events had forgotten what follows it.
            self._refuse(new.view, "its history ends before the log begins: add it as another version")
            self._waiting.remove(new)
            return
        new.fold = PartitionFold(
            self._others.partition,
            start.offset,
            OriginMarks(start.marks),
            [new.view],
            self._settings.cache_states,
            start_key(new.view, self._others.partition),
        )

    async def _replay(self, new: NewView, fold: PartitionFold) -> None:
        if fold.offset < self._others.offset:
            await self._slice(fold)
        if fold.offset == self._others.offset:
            if not await self._store.join_view(fold.partition, self._token, new.view, fold.offset):
                raise Conflict(f"partition {fold.partition} has another owner")
            self._others.add_view(new.view)
            self._waiting.remove(new)
            self._replays.forget(self._where)
            metrics.VIEWS_JOINED.inc()
            metrics.log.info("view is live", view=new.view.name, partition=fold.partition, offset=fold.offset)

    async def _slice(self, fold: PartitionFold) -> None:
        records = await self._replays.take(self._where, fold.offset)
        if not records:
            return
        messages: list[Message] = []
        events = used = 0
        # As many events as a write of the others: a record may hold one, or hundreds.
        while used < len(records) and events < self._settings.fold_events:
            if records[used].offset >= self._others.offset:
                break
            decoded = decode(records[used].value)[0]
            messages += decoded
            events += sum(len(found) for _, found in decoded)
            used += 1
        next_offset = records[used - 1].offset + 1 if used else self._others.offset
        self._replays.keep(self._where, next_offset, records[used:])
        taken = fold.take(messages)
        absent = fold.missing(taken)
        values = await self._store.load(list(absent))
        for (key, plan), value in zip(absent.values(), values, strict=True):
            fold.put(key, plan, value)
        section = fold.fold(taken, next_offset)
        (outcome,) = await self._store.write([(self._token, section)])
        if outcome is Outcome.REFUSED:
            raise Conflict(f"partition {fold.partition} has another owner")
        metrics.VIEWS_REPLAYED.inc(section.events)
