"""Stage 2, the host: feature-events -> packed states in Redis.

Where the fold stands is kept in Redis beside the state and changes together with it; the offsets committed
to Kafka are for those who watch the lag. While Redis is away the current round waits and is tried again;
nothing is read on meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from redis.exceptions import RedisError

from services.contract import topics
from services.contract.errors import Conflict, LoopError
from services.contract.feature_events import FOLD_GROUP, check_routed, size_of
from services.contract.feature_sets import feature_set
from services.contract.view_fold import OriginMarks
from services.contract.view_growth import GrowingSet
from services.feature_pipeline import metrics
from services.feature_pipeline.dead_letters import reject
from services.feature_pipeline.fold_batch import Message, PartitionFold, Section, decode
from services.feature_pipeline.new_views import NewViews, Replays
from services.feature_pipeline.settings import FeaturePipelineSettings
from services.feature_pipeline.state_store import Outcome, StateStore
from services.runtime.kafka_consumer import ConsumerRecord, GroupReader, TopicPartition
from services.runtime.kafka_producer import Producer
from services.runtime.kafka_tail import LogTail

_IDLE_MS = 100
_COMMIT_S = 1.0
_WATCH_S = 5.0
_T = TypeVar("_T")


@dataclass
class Owned:
    """A claimed partition."""

    token: bytes
    fold: PartitionFold
    new_views: NewViews


@dataclass
class Round:
    """What was gathered of one partition since the last write."""

    owned: Owned
    messages: list[Message] = field(default_factory=list)
    next_offset: int = 0
    events: int = 0


class FoldWorker:
    """``run`` in a guarded task."""

    def __init__(
        self,
        settings: FeaturePipelineSettings,
        store: StateStore,
        producer: Producer,
        *,
        growing: GrowingSet,
        tail: LogTail,
        replays: Replays,
    ) -> None:
        self._settings = settings
        self._store = store
        self._producer = producer
        self._growing = growing
        self._tail = tail
        self._replays = replays
        self._views = feature_set(settings.feature_set).views
        for view in self._views:
            check_routed(view)
        self.reader = GroupReader(
            settings.kafka,
            f"{settings.name} fold",
            FOLD_GROUP,
            [topics.FEATURE_EVENTS.name],
            on_assigned=self._drop,
            on_revoked=self._drop,
        )
        self.owned: dict[TopicPartition, Owned] = {}
        self._committed_at = 0.0
        self.last_barrier = ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._claim_new()
                await self._advance_views()
                rounds = await self._gather()
                if rounds:
                    await self._write(rounds)
                await self._commit()
            except LoopError as error:
                metrics.log.warning("fold: trying again", error=str(error))
                # What was gathered and not written is read again from where Redis stands.
                self.owned.clear()
                await asyncio.sleep(self._settings.retry_ms / 1000)

    async def watch_redis(self) -> None:
        """Keeps the gauges of Redis; until cancelled."""
        while True:
            await asyncio.sleep(_WATCH_S)
            try:
                evicted, used = await self._store.pressure()
            except (RedisError, OSError, TimeoutError) as error:
                metrics.log.debug("redis unknown", error=repr(error))
                continue
            metrics.EVICTED.set(evicted)
            metrics.REDIS_BYTES.set(used)

    async def _drop(self, partitions: set[TopicPartition]) -> None:
        for where in partitions:
            self.owned.pop(where, None)

    async def _claim_new(self) -> None:
        for where in self.reader.assigned() - set(self.owned):
            await self._claim(where)

    async def _claim(self, where: TopicPartition) -> None:
        claim = await self._persist(lambda: self._store.claim(where.partition))
        beginning = (await self.reader.beginning_offsets([where]))[where]
        end = (await self.reader.end_offsets([where]))[where]
        start, offset, marks = "continued", claim.offset, OriginMarks(claim.marks)
        if offset is not None and offset > end:
            await self._persist(lambda: self._store.forget(where.partition))
            start, offset, marks = "log_shorter", None, OriginMarks()
        elif offset is None:
            start = "beginning"
        elif offset < beginning:
            start = "after_gap"
        if start in ("log_shorter", "after_gap"):
            metrics.log.error("fold: state and log do not fit", partition=where.partition, start=start)
        if where not in self.reader.assigned():
            return
        position = max(beginning, offset or 0)
        fold = PartitionFold(
            where.partition,
            -1 if offset is None else offset,
            marks,
            self._views,
            self._settings.cache_states,
        )
        # A view that is live in Redis was on the topic before: it must not be missed by the first round.
        await self._tail.catch_up()
        new_views = NewViews(self._settings, self._store, self._growing, self._replays, claim.token, fold)
        if where not in self.reader.assigned():
            return
        self.reader.seek(where, position)
        self.owned[where] = Owned(claim.token, fold, new_views)
        metrics.CLAIMS.labels(start).inc()
        metrics.log.info("fold: claimed", partition=where.partition, start=start, offset=position)

    async def _advance_views(self) -> None:
        for where, owned in list(self.owned.items()):
            try:
                await self._persist(owned.new_views.advance)
            except Conflict as error:
                metrics.log.warning("fold: claiming again", partition=where.partition, error=str(error))
                if self.owned.get(where) is owned:
                    del self.owned[where]

    async def _gather(self) -> dict[TopicPartition, Round]:
        """Events until the interval has passed, there are enough, or a barrier is among them."""
        rounds: dict[TopicPartition, Round] = {}
        barrier, until = False, 0.0
        most_records = max(1, self._settings.fold_events // self._settings.batch_parts)
        while True:
            wait_ms = max(1, int((until - time.monotonic()) * 1000)) if rounds else _IDLE_MS
            found = await self.reader.poll(wait_ms, most_records)
            for where, records in found.items():
                barrier |= await self._take(where, records, rounds)
            count = sum(each.events for each in rounds.values())
            now = time.monotonic()
            if not rounds or barrier or count >= self._settings.fold_events:
                return rounds
            if until == 0.0:
                until = now + self._settings.fold_interval_ms / 1000
            if now >= until:
                return rounds
            await asyncio.sleep(min(self._settings.fold_pause_ms / 1000, until - now))

    async def _take(
        self, where: TopicPartition, records: list[ConsumerRecord], rounds: dict[TopicPartition, Round]
    ) -> bool:
        """Decodes into the partition's round; True when a barrier is among the records."""
        owned = self.owned.get(where)
        if owned is None:  # not claimed yet: will be read again from where Redis stands
            return False
        current = rounds.get(where)
        if current is None or current.owned is not owned:
            current = rounds[where] = Round(owned)
        barrier = False
        for record in records:
            messages, error = decode(record.value)
            if error is not None:
                await reject(self._producer, record, error)
            current.messages += messages
            current.events += sum(size_of(message) for message, _ in messages)
            barrier = barrier or any(message.HasField("barrier") for message, _ in messages)
        current.next_offset = records[-1].offset + 1
        return barrier

    async def _write(self, rounds: dict[TopicPartition, Round]) -> None:
        live = {where: each for where, each in rounds.items() if self.owned.get(where) is each.owned}
        sections = await self._fold(list(live.values()))
        written = await self._persist(lambda: self._store.write(sections))
        for (where, each), (_, section), outcome in zip(live.items(), sections, written, strict=True):
            metrics.WRITES.labels(outcome.name.lower()).inc()
            if outcome is Outcome.REFUSED:
                metrics.log.warning("fold: write refused, claiming again", partition=where.partition)
                if self.owned.get(where) is each.owned:
                    del self.owned[where]
                continue
            metrics.FOLDED.inc(section.events)
            metrics.WRITTEN.inc(len(section.states))
            if section.barriers:
                self.last_barrier = section.barriers[-1][0]

    async def _fold(self, rounds: list[Round]) -> list[tuple[bytes, Section]]:
        taken = [each.owned.fold.take(each.messages) for each in rounds]
        wanted = [each.owned.fold.missing(some) for each, some in zip(rounds, taken, strict=True)]
        values = iter(await self._persist(lambda: self._store.load([key for some in wanted for key in some])))
        sections = []
        for each, some, absent in zip(rounds, taken, wanted, strict=True):
            for key, plan in absent.values():
                if not each.owned.fold.put(key, plan, next(values)):
                    metrics.UNREADABLE.inc()
            section = each.owned.fold.fold(some, each.next_offset)
            metrics.CACHE_MISSES.inc(len(absent))
            metrics.CACHE_HITS.inc(len(section.states) - len(absent))
            metrics.REPEATS.inc(some.repeats)
            sections.append((each.owned.token, section))
        return sections

    async def _persist(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Tries until Redis has answered."""
        while True:
            try:
                return await work()
            except (RedisError, OSError, TimeoutError) as error:
                metrics.REDIS_ERRORS.inc()
                metrics.log.warning("fold: redis is away", error=repr(error))
                await asyncio.sleep(self._settings.retry_ms / 1000)

    async def _commit(self) -> None:
        now = time.monotonic()
        if now - self._committed_at < _COMMIT_S:
            return
        self._committed_at = now
        held = self.reader.assigned()
        offsets: dict[TopicPartition, Any] = {
            where: each.fold.offset
            for where, each in self.owned.items()
            if where in held and each.fold.offset >= 0
        }
        if offsets:
            try:
                await self.reader.commit(offsets)
            except Conflict as error:
                metrics.log.info("commit refused", error=str(error))
