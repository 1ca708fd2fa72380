"""New items reach the catalogue while the load runs: published in small batches, in the order of birth."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import numpy as np

from loadgen.items import item_key
from loadgen.world import World
from loadgen.world_clock import WorldClock
from rec.events.v1.events_pb2 import Item
from rec.v1 import collector_pb2, collector_pb2_grpc
from services.contract.times import from_us
from services.runtime.telemetry import get_logger

log = get_logger("loadgen")

MAX_BATCH_ITEMS = 1_000
EVERY_S = 1.0
DEADLINE_S = 10.0


def born_item(world: World, clock: WorldClock, index: int) -> Item:
    """The catalogue's record of an item."""
    return Item(
        item_id=int(world.items.ids[index]),
        item_key=item_key(index),
        category=int(world.items.category[index]),
        created_at=from_us(clock.event_us(float(world.born_s(np.array([index]))[0]))),
    )


class Births:
    """Publishes what has been born since world time 0; what was not acknowledged is published again."""

    def __init__(
        self, channel: grpc.aio.Channel, world: World, clock: WorldClock, event_now_us: Callable[[], int]
    ) -> None:
        self._stub = collector_pb2_grpc.CollectorServiceStub(channel)
        self._world = world
        self._clock = clock
        self._event_now_us = event_now_us
        self._next = world.config.items
        self.failures = 0

    @property
    def published(self) -> int:
        """Items acknowledged so far."""
        return self._next - self._world.config.items

    async def publish_due(self) -> None:
        """Publishes everything born until now; AioRpcError when the collector does not take it."""
        born = self._world.born_until(self._clock.world_s(self._event_now_us()))
        while self._next < born:
            upto = min(born, self._next + MAX_BATCH_ITEMS)
            items = [born_item(self._world, self._clock, index) for index in range(self._next, upto)]
            request = collector_pb2.PublishItemsRequest(items=items)
            await self._stub.PublishItems(request, timeout=DEADLINE_S)
            self._next = upto

    async def run(self) -> None:
        """Publishes until cancelled."""
        while True:
            try:
                await self.publish_due()
            except grpc.aio.AioRpcError as error:
                self.failures += 1
                log.warning("items not published", code=error.code().name, details=error.details())
            await asyncio.sleep(EVERY_S)
