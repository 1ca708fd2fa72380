"""What both stages are doing: WorkerService and the lag gauges."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import grpc

from rec.v1 import worker_pb2_grpc
from rec.v1.worker_pb2 import GetWorkerStatusRequest, GetWorkerStatusResponse, PartitionStatus
from services.contract import times
from services.contract.errors import LoopError
from services.feature_pipeline import metrics
from services.feature_pipeline.catalog import Catalog
from services.feature_pipeline.fold_worker import FoldWorker
from services.feature_pipeline.split_worker import SplitWorker
from services.runtime.kafka_consumer import GroupReader, TopicPartition

_LAG_S = 2.0


class Status(worker_pb2_grpc.WorkerServiceServicer):
    """Asks the readers; the answer names every assigned partition of both stages."""

    def __init__(
        self, name: str, catalog: Catalog, split: SplitWorker, fold: FoldWorker, ready: Callable[[], bool]
    ) -> None:
        self._name = name
        self._catalog = catalog
        self._split = split
        self._fold = fold
        self._ready = ready

    async def GetWorkerStatus(
        self, request: GetWorkerStatusRequest, context: grpc.aio.ServicerContext
    ) -> GetWorkerStatusResponse:
        """See the proto."""
        response = GetWorkerStatusResponse(
            worker=self._name,
            state="running" if self._ready() else "starting",
            last_barrier_id=self._fold.last_barrier,
        )
        if self._ready():
            response.partitions.extend(await _partitions(self._split.reader, self._split.watermarks))
            response.partitions.extend(await _partitions(self._fold.reader, {}))
        numbers = response.numbers
        numbers["catalog_items"] = len(self._catalog)
        numbers["owned_partitions"] = len(self._fold.owned)
        for name, metric in _NUMBERS.items():
            numbers[name] = sum(
                sample.value
                for family in metric.collect()
                for sample in family.samples
                if sample.name.endswith("_total")
            )
        return response

    async def watch_lag(self) -> None:
        """Keeps the lag gauges; until cancelled."""
        while True:
            await asyncio.sleep(_LAG_S)
            for reader in (self._split.reader, self._fold.reader):
                try:
                    await _lag(reader)
                except LoopError as error:
                    metrics.log.debug("lag unknown", error=str(error))


_NUMBERS = {
    "split_records": metrics.RECORDS,
    "split_parts": metrics.PARTS,
    "duplicates": metrics.DUPLICATES,
    "dead_letters": metrics.DEAD,
    "unknown_category": metrics.UNKNOWN_CATEGORY,
    "folded": metrics.FOLDED,
    "fold_repeats": metrics.REPEATS,
    "fold_writes": metrics.WRITES,
    "cache_hits": metrics.CACHE_HITS,
    "cache_misses": metrics.CACHE_MISSES,
    "redis_errors": metrics.REDIS_ERRORS,
    "barriers": metrics.BARRIERS,
    "views_joined": metrics.VIEWS_JOINED,
    "views_refused": metrics.VIEWS_REFUSED,
}


async def _partitions(reader: GroupReader, watermarks: Mapping[TopicPartition, int]) -> list[PartitionStatus]:
    found = sorted(reader.assigned())
    ends = await reader.end_offsets(found) if found else {}
    statuses = []
    for where in found:
        status = PartitionStatus(
            topic=where.topic,
            partition=where.partition,
            position=await reader.position(where),
            committed=await reader.committed(where) or 0,
            end=ends[where],
        )
        if where in watermarks:
            times.set_us(status.watermark, watermarks[where])
        statuses.append(status)
    return statuses


async def _lag(reader: GroupReader) -> None:
    found = reader.assigned()
    ends = await reader.end_offsets(found) if found else {}
    lags: dict[str, int] = {}
    for where, end in ends.items():
        if where in reader.assigned():
            behind = max(0, end - await reader.position(where))
            lags[where.topic] = lags.get(where.topic, 0) + behind
    for topic, lag in lags.items():
        metrics.LAG.labels(topic).set(lag)
