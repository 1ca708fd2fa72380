"""Says on feature-views that an added view is served from now on: when every partition's fold has it live.

Whichever replica finds that out writes it, behind a fence: the list is read to its end once nobody else can
write any more, and goes on from there. So all readers see one list that only grows, whatever dies.
"""

from __future__ import annotations

import asyncio

from redis.exceptions import RedisError

from services.contract import topics
from services.contract.errors import LoopError
from services.contract.feature_view import FeatureView
from services.contract.view_growth import SERVED_KEY, GrowingSet
from services.feature_pipeline import metrics
from services.feature_pipeline.state_store import StateStore
from services.runtime.kafka_producer import TransactionalProducer
from services.runtime.kafka_tail import LogTail
from services.runtime.settings import KafkaSettings

WRITER = "feature-views-served"
_LOOK_S = 1.0


class ServedViews:
    """``run`` in a guarded task."""

    def __init__(self, kafka: KafkaSettings, store: StateStore, growing: GrowingSet, tail: LogTail) -> None:
        self._kafka, self._store, self._growing, self._tail = kafka, store, growing, tail
        self._folded_only: set[str] = set()
        metrics.SERVED_VIEWS.set_function(lambda: float(len(growing.served)))

    async def run(self) -> None:
        """Until cancelled; what does not succeed is tried again."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                for view in self._due():
                    if await self._complete(view):
                        await self._say(view)
            except (LoopError, RedisError, OSError, TimeoutError) as error:
                metrics.log.warning("served views: trying again", error=repr(error))

    def _due(self) -> list[FeatureView]:
        due = []
        for view in self._growing.views:
            if view.full_name in self._growing.served or view.full_name in self._folded_only:
                continue
            why = self._growing.refusal(view)
            if why is None:
                due.append(view)
                continue
            self._folded_only.add(view.full_name)
            metrics.VIEWS_REFUSED.inc()
            metrics.log.error("view folded, not served", view=view.full_name, reason=why)
        return due

    async def _complete(self, view: FeatureView) -> bool:
        for partition in range(topics.FEATURE_EVENTS.partitions):
            added = await self._store.added_view(partition, view)
            if added is None or not added.live or added.start.definition_hash != view.definition_hash:
                return False
        return True

    async def _say(self, view: FeatureView) -> None:
        producer = TransactionalProducer(self._kafka, WRITER)
        try:
            await producer.start()
            await self._tail.catch_up()
            if view.full_name in self._growing.served:
                return
            await producer.begin()
            value = self._growing.served_with(view)
            producer.send_nowait(topics.FEATURE_VIEWS.name, value, SERVED_KEY, partition=0)
            await producer.commit()
            await self._tail.catch_up()
            metrics.log.info("view is served", view=view.name, set=self._growing.newest_name)
        finally:
            await producer.stop()
