"""The feature sets that samples may be logged under, as far as feature-views has been read.

Ranking logs under a set only after it has read of it there. So a hash that is not known is asked for: the log
is read to its end, and then the hash is known or foreign.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from services.contract import topics
from services.contract.errors import LoopError
from services.contract.feature_sets import feature_set
from services.contract.view_growth import GrowingSet, named_set
from services.contract.view_registry import FeatureSet
from services.runtime.kafka_tail import LogTail
from services.runtime.settings import KafkaSettings
from services.runtime.telemetry import get_logger

log = get_logger(__name__)


class Schemas:
    """``growing`` may be read from any thread; ``start``, ``learn`` and ``stop`` belong to the event loop."""

    def __init__(self, kafka: KafkaSettings, client_id: str, set_name: str) -> None:
        self.growing = GrowingSet(set_name, feature_set(set_name))
        self._tail = LogTail(kafka, client_id, topics.FEATURE_VIEWS.name, self.growing.take)

    async def start(self) -> None:
        """Connects and reads what is there; LoopError when Kafka does not answer."""
        await self._tail.start()
        await self._tail.catch_up()

    async def learn(self, retry_s: float, gives_up: Callable[[], bool]) -> None:
        """Reads to the end, however long Kafka is away; unless the caller ``gives_up``."""
        while not gives_up():
            try:
                await self._tail.catch_up()
            except LoopError as error:
                log.warning("feature views not readable", error=str(error))
                await asyncio.sleep(retry_s)
            else:
                return

    async def stop(self) -> None:
        """Closes."""
        await self._tail.stop()


class SetsOnDemand:
    """For a command: Kafka is asked (blocking, once) only where the named set does not explain all.
    ``set_name``: a set, added views and all."""

    def __init__(self, kafka: KafkaSettings, client_id: str, set_name: str) -> None:
        self._set_name, self._named = set_name, named_set(set_name)
        self._schemas = Schemas(kafka, client_id, self._named)
        self._asked = False

    def chosen(self) -> FeatureSet:
        """The set; NotFound when it is not served (yet)."""
        if self._set_name != self._named:
            self._ask()
        return self._schemas.growing.named(self._set_name)

    def of(self, hashes: Iterable[int]) -> GrowingSet:
        """All sets, those of these hashes among them if anybody knows them; LoopError when Kafka does not
        answer."""
        if any(self._schemas.growing.shape(one) is None for one in hashes):
            self._ask()
        return self._schemas.growing

    def _ask(self) -> None:
        if not self._asked:
            asyncio.run(self._read())
            self._asked = True

    async def _read(self) -> None:
        try:
            await self._schemas.start()
        finally:
            await self._schemas.stop()
