"""The scheme ``label-first``: labels into memory, slim snapshots when their labels are in.

Snapshots are polled apart, and only as many as there is room for: what is not due yet stays in the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.contract import batch_view, topics, view_store
from services.contract.feature_sets import feature_set
from services.contract.join_config import JoinConfig
from services.contract.join_events import Source
from services.contract.join_label_first import LabelFirstTask
from services.contract.join_position import Position
from services.contract.lake_store import LakeStore
from services.joiner.gate import Gate
from services.joiner.scheme import Intake, Scheme
from services.joiner.settings import Settings
from services.joiner.view_tables import ViewTables
from services.runtime.kafka_consumer import TopicPartition


class LabelFirst(Scheme):
    """Shares the tables of batch features among its partitions."""

    inputs = {**Scheme.inputs, Source.SNAPSHOTS: topics.FEATURE_SNAPSHOTS_SLIM}  # noqa: RUF012

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        store = LakeStore(settings.lake_uri)
        self._feature_set = feature_set(settings.feature_set)
        self._tables = ViewTables(
            lambda view: view_store.read(store, view), settings.max_view_tables, settings.retry_ms / 1000
        )

    def task(self, config: JoinConfig, positions: Mapping[Source, Position]) -> LabelFirstTask:
        """A LabelFirstTask that makes snapshots whole."""
        return LabelFirstTask(
            config,
            positions,
            lambda snapshot: batch_view.complete(snapshot, self._tables.find, self._feature_set),
        )

    def intake(self) -> Gate:
        """A gate for the snapshots."""
        settings = self.settings
        return Gate(settings.max_gated_records, self._tables.ready, settings.pause_held_events)

    def reads(
        self, owned: set[TopicPartition], intakes: Mapping[int, Intake]
    ) -> list[tuple[Sequence[TopicPartition], int]]:
        """Each partition's snapshots for which there is room, then the labels of all."""
        snapshots = topics.FEATURE_SNAPSHOTS_SLIM.name
        found: list[tuple[Sequence[TopicPartition], int]] = []
        for partition, gate in intakes.items():
            where = TopicPartition(snapshots, partition)
            if isinstance(gate, Gate) and gate.room > 0 and where in owned:
                found.append(([where], gate.room))
        labels = [where for where in owned if where.topic != snapshots]
        return [*found, (labels, self.settings.max_poll_records)] if labels else found

    async def run(self) -> None:
        """Reads tables."""
        await self._tables.run()
