"""A small topic of one partition that every replica knows whole: read to its end, then followed.

No group and no commits: a start reads it from its beginning. What the reader cannot use is counted and
logged, and stands in nobody's way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.contract.errors import LoopError, NotFound
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.settings import KafkaSettings
from services.runtime.telemetry import counter, get_logger

log = get_logger(__name__)
_CATCH_UP_MS = 100
_FOLLOW_MS = 500
_RETRY_S = 0.5
_START_RETRY_S = 1.0
_RECORDS = 1_000
# A LoopError refuses the record; it may come again.
Take = Callable[[bytes | None, bytes | None], None]


class LogTail:
    """Gives (key, value) of each record, in order, to ``take``."""

    def __init__(self, kafka: KafkaSettings, client_id: str, topic: str, take: Take) -> None:
        self._reader = LogReader(kafka, client_id, slow=True)
        self._where = TopicPartition(topic, 0)
        self._take = take
        self._assigned = False
        # Who follows and who catches up take turns at the one reader.
        self._turn = asyncio.Lock()
        self._refused = counter(
            "kafka_tail_refused", "Records of a followed topic that mean nothing.", ["topic"]
        )

    async def start(self) -> None:
        """Connects; Unavailable when the broker does not come in time."""
        self._assigned = False
        await self._reader.start()

    async def catch_up(self) -> None:
        """Reads all that is there now. LoopError when Kafka is away."""
        async with self._turn:
            await self._begin()
            end = (await self._reader.end_offsets([self._where]))[self._where]
            while await self._reader.position(self._where) < end:
                await self._poll(_CATCH_UP_MS)

    async def until_read(self) -> None:
        """Connects and reads all that is there now, tried again until Kafka is there."""
        while True:
            try:
                await self.start()
                await self.catch_up()
            except LoopError as error:
                log.warning("not known yet, trying again", topic=self._where.topic, error=str(error))
                await self.stop()
                await asyncio.sleep(_START_RETRY_S)
            else:
                return

    async def run(self, after: Callable[[], None] = lambda: None) -> None:
        """Follows until cancelled; ``after`` is called whenever there was something. What was known stays
        known while Kafka is away."""
        while True:
            try:
                async with self._turn:
                    await self._begin()
                    found = await self._poll(_FOLLOW_MS)
                if found:
                    after()
            except LoopError as error:
                log.warning("not followed", topic=self._where.topic, error=str(error))
                await asyncio.sleep(_RETRY_S)

    async def stop(self) -> None:
        """Closes."""
        await self._reader.stop()

    async def _begin(self) -> None:
        if not self._assigned:
            self._reader.assign(await self._reader.beginning_offsets([self._where]))
            self._assigned = True

    async def _poll(self, wait_ms: int) -> int:
        try:
            records = (await self._reader.poll(wait_ms, _RECORDS)).get(self._where, [])
        except NotFound:  # the topic has begun anew: all of it again
            self._assigned = False
            raise
        for record in records:
            try:
                self._take(record.key, record.value)
            except LoopError as error:
                self._refused.labels(self._where.topic).inc()
                log.warning("record refused", topic=self._where.topic, offset=record.offset, error=str(error))
        return len(records)
