"""Snapshots a second time without the batch columns that the newest table of the lake gives again.

The table is looked for beside the scoring path and swapped as one reference. Ranking does not depend on
the lake: without a table, or while the store fails, all columns travel.
"""

from __future__ import annotations

import asyncio

from rec.events.v1 import events_pb2
from services.contract import batch_view, view_store
from services.contract.batch_view import VERSION, VIEW, Table
from services.contract.errors import LoopError
from services.contract.lake_store import LakeStore
from services.contract.view_registry import FeatureSet
from services.ranking.metrics import Metrics
from services.runtime.telemetry import get_logger

log = get_logger(__name__)


class Slimmer:
    """``run`` as a guarded task; ``slim`` at any time."""

    def __init__(self, store: LakeStore, feature_set: FeatureSet, metrics: Metrics, poll_s: float) -> None:
        self._feature_set = feature_set
        self._store = store
        self._metrics = metrics
        self._poll_s = poll_s
        self.table: Table | None = None

    def slim(self, record: events_pb2.EventRecord) -> events_pb2.EventRecord:
        """The slim record of a snapshot's."""
        made = batch_view.slim(record.snapshot, self.table, self._feature_set)
        inline = len(made.slim.inline_rows) // 4
        self._metrics.slim_rows.labels("inline").inc(inline)
        self._metrics.slim_rows.labels("named").inc(len(made.item_ids) // 8 - inline)
        return events_pb2.EventRecord(snapshot=made)

    async def run(self) -> None:
        """Follows the newest table until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self._follow)
            except (LoopError, OSError) as error:
                self._metrics.view_failures.inc()
                log.warning("no batch features read", error=repr(error))
            await asyncio.sleep(self._poll_s)

    def _follow(self) -> None:
        newest = max(view_store.partitions(self._store), default=None)
        if newest is None or (self.table is not None and newest == self.table.partition):
            return
        name = events_pb2.BatchView(view=VIEW, version=VERSION, partition=newest)
        self.table = view_store.read(self._store, name)
        self._metrics.view_partition.set(newest)
