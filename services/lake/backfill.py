"""A new view's first states, from the lake into Redis (contract.view_backfill says what the fold does).

Of each feature-events partition: wait for the fold to name the view's start, wait until the lake holds all
that was folded there by then, make the states of the partition's entities at that cut, write them, say so. A
partition that is filled already is left alone, and so is one that somebody else fills meanwhile: every write
asks first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import cast

import redis.asyncio as redis

from services.contract.errors import Conflict, Unavailable
from services.contract.feature_events import PARTS_PER_RECORD, owner
from services.contract.feature_view import FeatureView
from services.contract.redis_keys import view_key
from services.contract.topics import FEATURE_EVENTS
from services.contract.view_backfill import DEFINITION, FILLED, ViewStart, start_key
from services.contract.view_init import below, initial_states
from services.contract.view_log import EventLog
from services.contract.view_ttl import ttl_s
from services.lake.view_log import LakeEvents

STATES_PER_WRITE = 500
_POLL_S = 0.25
_WRITTEN, _FILLED, _OTHER = 1, 0, -1
# KEYS: the start, then the states' keys. ARGV: definition, seconds to live, then the states.
_SCRIPT = """
if redis.call('HGET', KEYS[1], 'definition') ~= ARGV[1] then return -1 end
if redis.call('HEXISTS', KEYS[1], 'filled') == 1 then return 0 end
for at = 2, #KEYS do redis.call('SET', KEYS[at], ARGV[at + 1], 'EX', ARGV[2]) end
return 1
"""


@dataclass(frozen=True)
class Filled:
    """What was done for one partition: ``states`` written, of the lake's ``events`` below its cut;
    ``before``: it was filled already. ``waited_s`` for the fold and the lake."""

    view: str
    partition: int
    states: int
    events: int
    before: bool
    waited_s: float


def missing(start: ViewStart, next_offsets: Mapping[str, int]) -> list[str]:
    """Origins of which the lake does not hold yet what the start's marks name, with what it lacks.

    ``next_offsets``: per origin the first record that the lake does not hold."""
    lacking = []
    for origin, sequence in sorted(start.marks.items()):
        wanted = sequence // PARTS_PER_RECORD
        if sequence >= 0 and next_offsets.get(origin, 0) <= wanted:
            lacking.append(f"{origin} from {next_offsets.get(origin, 0)} to {wanted}")
    return lacking


class Backfill:
    """``timeout_s``: for the fold to name its starts, and for the lake to hold what is below them."""

    def __init__(self, client: redis.Redis, events: LakeEvents, view: FeatureView, timeout_s: float) -> None:
        self._redis, self._events, self._view, self._timeout_s = client, events, view, timeout_s
        self._script = client.register_script(_SCRIPT)

    async def run(self) -> list[Filled]:
        """Every partition. Unavailable: a wait was too long, and for what. MalformedRecord, Conflict: a start
        is none, or of another definition. redis.RedisError; LoopError of the lake: may be run again."""
        began = time.monotonic()
        deadline = began + self._timeout_s
        partitions = range(FEATURE_EVENTS.partitions)
        starts = {partition: await self._start(partition, deadline) for partition in partitions}
        for partition, start in starts.items():
            if start.filled is None:
                await self._until_held(partition, start, deadline)
        waited_s = round(time.monotonic() - began, 3)
        log = await asyncio.to_thread(self._events.read)
        return [await self._fill(partition, start, log, waited_s) for partition, start in starts.items()]

    async def _start(self, partition: int, deadline: float) -> ViewStart:
        key = start_key(self._view, partition)
        while True:
            stored = await cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(key))
            start = ViewStart.parse(stored)
            if start is not None:
                start.check(self._view)
                return start
            await _pause(deadline, f"the fold of partition {partition} has not begun {key.decode()}")

    async def _until_held(self, partition: int, start: ViewStart, deadline: float) -> None:
        while lacking := missing(start, await asyncio.to_thread(self._events.next_offsets)):
            await _pause(deadline, f"partition {partition}: the lake lacks {'; '.join(lacking)}")

    async def _fill(self, partition: int, start: ViewStart, log: EventLog, waited_s: float) -> Filled:
        name = self._view.full_name
        if start.filled is not None:
            return Filled(name, partition, 0, 0, True, waited_s)
        made = await asyncio.to_thread(initial_states, self._view, log, start.cut())
        states = [(entity, state) for entity, state in made.items() if owner(entity) == partition]
        key, definition = start_key(self._view, partition), start.fields()[DEFINITION]
        for at in range(0, len(states), STATES_PER_WRITE):
            some = states[at : at + STATES_PER_WRITE]
            keys = [key, *(view_key(self._view, entity) for entity, _ in some)]
            values = [state for _, state in some]
            outcome = await self._script(keys=keys, args=[definition, ttl_s(self._view), *values])
            if outcome == _OTHER:
                raise Conflict(f"{key.decode()}: the fold began anew with another definition")
            if outcome == _FILLED:
                return Filled(name, partition, 0, 0, True, waited_s)
        first = await self._redis.hsetnx(key, FILLED, str(len(states)))
        return Filled(name, partition, len(states) if first else 0, _below(log, start), not first, waited_s)


def _below(log: EventLog, start: ViewStart) -> int:
    return int(below(log, start.cut()).sum())


async def _pause(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise Unavailable(f"waited too long: {what}")
    await asyncio.sleep(_POLL_S)
