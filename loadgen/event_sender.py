"""What users saw and did, on its way to the collector: gathered briefly, sent until acknowledged, bounded.

A batch that was not acknowledged is sent again with the same event ids: a repeat has no effect. An event
leaves in exactly one way: acknowledged, refused by the collector (its fault is named), lost after all tries,
or dropped because too many were waiting; each is counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import grpc

from loadgen.rows import AckRow
from rec.events.v1.events_pb2 import Action, Impression
from rec.v1 import collector_pb2, collector_pb2_grpc
from services.contract.times import to_us
from services.runtime.telemetry import get_logger

log = get_logger("loadgen")

MAX_BATCH_EVENTS = 500
BATCHES_IN_FLIGHT = 8
BACKOFF_S, MAX_BACKOFF_S = 0.05, 1.0
_TRY_AGAIN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    # A collector killed in the middle of a call.
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
}

Event = Impression | Action


class EventSender:
    """One sender; ``run`` is its background task."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        acknowledged: Callable[[AckRow], None],
        *,
        linger_s: float,
        deadline_s: float,
        tries: int,
        max_pending: int,
    ) -> None:
        self._stub = collector_pb2_grpc.CollectorServiceStub(channel)
        self._acknowledged = acknowledged
        self._linger_s = linger_s
        self._deadline_s = deadline_s
        self._tries = tries
        self._max_pending = max_pending
        self._waiting: list[tuple[Event, int]] = []
        self._arrived = asyncio.Event()
        self._slots = asyncio.Semaphore(BATCHES_IN_FLIGHT)
        self._settled = asyncio.Event()
        self._settled.set()
        self.pending = 0
        # acknowledged, refused, lost, dropped (events); retries (calls).
        self.counts: Counter[str] = Counter()

    def put(self, event: Event) -> bool:
        """Queues an event; False when too many are waiting and it was dropped."""
        if self.pending >= self._max_pending:
            self.counts["dropped"] += 1
            return False
        self.pending += 1
        self._settled.clear()
        self._waiting.append((event, time.time_ns() // 1000))
        self._arrived.set()
        return True

    async def flush(self) -> None:
        """Returns when nothing is pending."""
        await self._settled.wait()

    async def run(self) -> None:
        """Sends until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._arrived.wait()
                if self._linger_s:
                    await asyncio.sleep(self._linger_s)
                await self._slots.acquire()
                batch, self._waiting = self._waiting[:MAX_BATCH_EVENTS], self._waiting[MAX_BATCH_EVENTS:]
                if not self._waiting:
                    self._arrived.clear()
                group.create_task(self._deliver(batch))

    async def _deliver(self, batch: list[tuple[Event, int]]) -> None:
        try:
            answer = await self._send(batch)
            if answer is not None:
                at_us = to_us(answer.acknowledged_at)
                self.counts["acknowledged"] += len(batch)
                for event, put_us in batch:
                    self._acknowledged(ack_row(event, put_us, at_us))
        finally:
            self._slots.release()
            self.pending -= len(batch)
            if not self.pending:
                self._settled.set()

    async def _send(self, batch: list[tuple[Event, int]]) -> collector_pb2.LogEventsResponse | None:
        request = collector_pb2.LogEventsRequest(
            impressions=[event for event, _ in batch if isinstance(event, Impression)],
            actions=[event for event, _ in batch if isinstance(event, Action)],
        )
        for attempt in range(self._tries):
            if attempt:
                self.counts["retries"] += 1
                await asyncio.sleep(min(BACKOFF_S * 2**attempt, MAX_BACKOFF_S))
            try:
                return await self._stub.LogEvents(request, timeout=self._deadline_s)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _TRY_AGAIN:
                    log.error("events refused", code=error.code().name, details=error.details())
                    self.counts["refused"] += len(batch)
                    return None
        log.error("events lost", count=len(batch), tries=self._tries)
        self.counts["lost"] += len(batch)
        return None


def ack_row(event: Event, sent_us: int, acknowledged_us: int) -> AckRow:
    """The evidence of one acknowledged event; ``sent_us`` is when the user's client had it."""
    action = isinstance(event, Action)
    return AckRow(
        event_id=event.event_id,
        request_id=event.request_id,
        kind="click" if action else "impression",
        item_id=event.item_id if action else 0,
        items=1 if action else len(event.item_ids),
        occurred_us=to_us(event.occurred_at),
        sent_us=sent_us,
        acknowledged_us=acknowledged_us,
    )
