"""The scheme ``lookup``: when a label is there, the features are asked for, as they are then.

All samples of a transaction are looked up at one event time: the furthest that the partition's inputs have
reached (t6). A server that does not answer, or answers with defaults because its store is away, is asked
again for as long as it takes: nothing is lost, reading waits once a transaction's worth has gathered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence

import grpc

from rec.events.v1 import events_pb2 as ev
from rec.v1 import feature_pb2, feature_pb2_grpc
from services.contract import times
from services.contract.join_config import JoinConfig
from services.contract.join_events import Source
from services.contract.join_lookup import LookupTask
from services.contract.join_position import Position
from services.contract.join_wire import sample_record
from services.joiner import metrics
from services.joiner.outgoing import Outgoing
from services.joiner.scheme import Scheme
from services.joiner.settings import Settings
from services.runtime import grpc_client

_AGAIN = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
    }
)


class Lookup(Scheme):
    """Shares the channel to the feature server among its partitions."""

    inputs = {source: Scheme.inputs[source] for source in LookupTask.sources}  # noqa: RUF012

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._channel = grpc_client.channel(
            settings.feature_target,
            settings.grpc_client,
            settings.tls,
            idempotent=["rec.v1.FeatureService/GetFeatures"],
        )
        self._stub = feature_pb2_grpc.FeatureServiceStub(self._channel)

    def task(self, config: JoinConfig, positions: Mapping[Source, Position]) -> LookupTask:
        """A join of the two inputs."""
        return LookupTask(config, positions)

    async def fill(self, task: LookupTask, batch: Sequence[Outgoing]) -> None:
        """Features for every sample. A refusal that no retry mends is raised as it came."""
        waiting = iter([one for one in batch if one.topic == self.names.samples])
        at_us = task.clock_us
        async with asyncio.TaskGroup() as group:
            for _ in range(self.settings.max_lookups):
                group.create_task(self._fill_all(waiting, at_us))

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    async def _fill_all(self, waiting: Iterable[Outgoing], at_us: int) -> None:
        for one in waiting:
            record = ev.SampleRecord.FromString(one.value)
            if record.HasField("sample"):
                await self._fill(record.sample, at_us)
                one.value = sample_record(record.sample.SerializeToString())

    async def _fill(self, sample: ev.TrainingSample, at_us: int) -> None:
        request = feature_pb2.GetFeaturesRequest(
            request_id=sample.request_id,
            user_id=sample.user_id,
            item_ids=sample.item_ids,
            occurred_at=times.from_us(at_us),
        )
        found = await self._ask(request)
        while found is None:
            await asyncio.sleep(self.settings.retry_ms / 1000)
            found = await self._ask(request)
        sample.schema_hash = found.schema_hash
        sample.user_features = found.user_features
        sample.item_features = found.item_features

    async def _ask(self, request: feature_pb2.GetFeaturesRequest) -> feature_pb2.GetFeaturesResponse | None:
        """The answer; None when another try may give one."""
        began = time.monotonic()
        try:
            found = await self._stub.GetFeatures(request, timeout=self.settings.lookup_timeout_ms / 1000)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _AGAIN:
                raise
            metrics.LOOKUPS.labels(error.code().name.lower()).inc()
            return None
        if found.degraded:
            metrics.LOOKUPS.labels("degraded").inc()
            return None
        metrics.LOOKUPS.labels("ok").inc()
        metrics.LOOKUP_SECONDS.observe(time.monotonic() - began)
        return found
