"""Views added while the loop runs: topic feature-views, read whole by every replica, without a group."""

from __future__ import annotations

from collections.abc import Iterable

from services.contract import topics
from services.contract.errors import Conflict, InvalidInput
from services.contract.feature_events import check_routed
from services.contract.feature_view import FeatureView, view_from
from services.contract.view_registry import ViewRegistry
from services.feature_pipeline import metrics
from services.runtime.kafka_consumer import LogReader, TopicPartition

_POLL_MS = 100
_RECORDS = 1_000


def key_of(view: FeatureView) -> bytes:
    """Key on feature-views."""
    return f"{view.name}.{view.version}".encode()


class ViewsFeed:
    """``views``: those added, in the order of the log. What contradicts an earlier one, or those of the set,
    is refused and counted: it has no effect anywhere."""

    def __init__(self, reader: LogReader, known: Iterable[FeatureView]) -> None:
        self._reader = reader
        self._registry = ViewRegistry(known)
        self._assigned = False
        self.views: list[FeatureView] = []

    async def catch_up(self) -> None:
        """Reads all that is there now. LoopError when Kafka is away."""
        where = TopicPartition(topics.FEATURE_VIEWS.name, 0)
        if not self._assigned:
            self._reader.assign(await self._reader.beginning_offsets([where]))
            self._assigned = True
        end = (await self._reader.end_offsets([where]))[where]
        while await self._reader.position(where) < end:
            for records in (await self._reader.poll(_POLL_MS, _RECORDS)).values():
                for record in records:
                    self._take(record.value)

    def _take(self, value: bytes | None) -> None:
        try:
            self.add(view_from((value or b"").decode()))
        except (InvalidInput, Conflict, UnicodeDecodeError) as error:
            metrics.VIEWS_REFUSED.inc()
            metrics.log.warning("added view refused", error=str(error))

    def add(self, view: FeatureView) -> bool:
        """False when it is known. Conflict: another definition under an old version. InvalidInput: its events
        do not reach the owners of its entities, or it is instant and needs no fold."""
        check_routed(view)
        if view.kind == "instant":
            raise InvalidInput.one(
                f"{view.name}.kind", view.kind, "batch or streaming: an instant view has no state"
            )
        new = self._registry.register(view)
        if new:
            self.views.append(view)
        return new
