"""The collector's RPCs: validate, write, wait, acknowledge.

LogEvents is all or nothing in validation; after a failure to acknowledge, some of a batch may be in the log
all the same: clients send it again under the same event ids, and the joiner suppresses repeats.
StreamEvents validates batch by batch: a bad one ends the stream with its index, and nothing of the stream
is acknowledged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager

import grpc

from rec.events.v1 import events_pb2
from rec.v1 import collector_pb2, collector_pb2_grpc
from services.collector import records, validation
from services.collector.intake import Acks, Intake
from services.collector.settings import CollectorSettings
from services.collector.time_bounds import TimeBounds, time_bounds
from services.contract.errors import InvalidInput
from services.contract.times import from_us, to_us
from services.runtime.clock import RunClock, WallClock
from services.runtime.grpc_client import remaining_s
from services.runtime.telemetry import counter


class CollectorServicer(collector_pb2_grpc.CollectorServiceServicer):
    """Owns the run clock's event side: it moves when Kafka has acknowledged."""

    def __init__(
        self, settings: CollectorSettings, intake: Intake, run_clock: RunClock, wall_clock: WallClock
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._run_clock = run_clock
        self._wall_clock = wall_clock
        self._accepted = counter("collector_events_accepted", "Events acknowledged to clients.", ["kind"])
        self._invalid = counter("collector_events_invalid", "Violations found in what clients sent.")

    async def LogEvents(
        self, request: collector_pb2.LogEventsRequest, context: grpc.aio.ServicerContext
    ) -> collector_pb2.LogEventsResponse:
        """All or nothing: one bad event refuses the batch and names it."""
        acks = self._write_events(request.impressions, request.actions, "")
        await self._intake.acknowledged(acks, self._patience_s(context))
        self._count(request.impressions, request.actions)
        return collector_pb2.LogEventsResponse(
            accepted=acks.count, acknowledged_at=from_us(self._wall_clock.now_us())
        )

    async def StreamEvents(
        self,
        request_iterator: AsyncIterator[collector_pb2.StreamEventsRequest],
        context: grpc.aio.ServicerContext,
    ) -> collector_pb2.StreamEventsResponse:
        """Many batches; a window of them waits for acknowledgement while the next ones are read."""
        waiting: deque[tuple[Acks, collector_pb2.StreamEventsRequest]] = deque()
        accepted = index = 0
        async for request in request_iterator:
            acks = self._write_events(request.impressions, request.actions, f"requests[{index}].")
            waiting.append((acks, request))
            index += 1
            if len(waiting) >= self._settings.stream_window:
                accepted += await self._settle(waiting, context)
        while waiting:
            accepted += await self._settle(waiting, context)
        if index == 0:
            raise InvalidInput.one("requests", 0, "at least one batch")
        return collector_pb2.StreamEventsResponse(
            accepted=accepted, acknowledged_at=from_us(self._wall_clock.now_us())
        )

    async def PublishItems(
        self, request: collector_pb2.PublishItemsRequest, context: grpc.aio.ServicerContext
    ) -> collector_pb2.PublishItemsResponse:
        """Adds or changes items of the catalogue."""
        with self._counted():
            validation.check_items(request.items)
        acks = self._intake.write(records.item_records(request.items))
        await self._intake.acknowledged(acks, self._patience_s(context))
        self._accepted.labels("item").inc(acks.count)
        return collector_pb2.PublishItemsResponse(
            accepted=acks.count, acknowledged_at=from_us(self._wall_clock.now_us())
        )

    async def EmitBarrier(
        self, request: collector_pb2.CollectorServiceEmitBarrierRequest, context: grpc.aio.ServicerContext
    ) -> collector_pb2.CollectorServiceEmitBarrierResponse:
        """Writes the barrier behind everything written so far, on every partition, and waits for the acks."""
        with self._counted():
            validation.check_barrier(
                request.barrier_id, request.HasField("occurred_at"), request.occurred_at, self._bounds()
            )
        acks = self._intake.write(records.barrier_records(request.barrier_id, request.occurred_at))
        await self._intake.acknowledged(acks, self._patience_s(context))
        self._run_clock.observe(to_us(request.occurred_at))
        self._accepted.labels("barrier").inc()
        return collector_pb2.CollectorServiceEmitBarrierResponse()

    def _write_events(
        self, impressions: Iterable[events_pb2.Impression], actions: Iterable[events_pb2.Action], path: str
    ) -> Acks:
        with self._counted():
            validation.check_events(impressions, actions, self._bounds(), path)
        return self._intake.write(records.event_records(impressions, actions))

    async def _settle(
        self,
        waiting: deque[tuple[Acks, collector_pb2.StreamEventsRequest]],
        context: grpc.aio.ServicerContext,
    ) -> int:
        acks, request = waiting.popleft()
        await self._intake.acknowledged(acks, self._patience_s(context))
        self._count(request.impressions, request.actions)
        return acks.count

    def _count(
        self, impressions: Iterable[events_pb2.Impression], actions: Iterable[events_pb2.Action]
    ) -> None:
        shown, acted = list(impressions), list(actions)
        self._run_clock.observe(records.newest_us(shown, acted))
        self._accepted.labels("impression").inc(len(shown))
        self._accepted.labels("action").inc(len(acted))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except InvalidInput as error:
            self._invalid.inc(len(error.violations))
            raise

    def _bounds(self) -> TimeBounds:
        return time_bounds(
            self._settings.event_time,
            self._settings.time_scale,
            self._run_clock.now_us(),
            self._wall_clock.now_us(),
        )

    def _patience_s(self, context: grpc.aio.ServicerContext) -> float:
        settings = self._settings
        return remaining_s(context, settings.ack_timeout_ms / 1000, reserve_s=settings.ack_reserve_ms / 1000)
