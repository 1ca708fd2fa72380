"""Writes first states to Redis: those of day 0, as if it had just ended.

Every write is absolute: a cut-off seed can run again.

A script takes a thousand states in one call: as many replies would cost a client without a compiled parser
seconds. Its keys are computed, so it is for one Redis, no cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import cast

import numpy as np
from redis.asyncio import Redis

from loadgen import day0_views
from loadgen.batches import batches
from loadgen.day0_files import Day0Files
from services.contract import redis_keys, topics
from services.contract.feature_events import PARTITIONS
from services.contract.feature_view import FeatureView
from services.contract.view_log import EventLog
from services.contract.view_registry import FeatureSet
from services.contract.view_ttl import ttl_s

_CATALOGUE = topics.CATALOG.name.encode() + b"/"
STATES_PER_CALL = 1_000
# One is made while Redis works on another.
CALLS_AT_ONCE = 4
COMMANDS_PER_CALL = 1_000
MEMBERS_PER_COMMAND = 1_000
Argument = bytes | str | int
Command = tuple[Argument, ...]

# ARGV: how long they live, then key and value of each state.
SCRIPT = """
for at = 2, #ARGV, 2 do redis.call('SET', ARGV[at], ARGV[at + 1], 'EX', ARGV[1]) end
"""


async def write(redis: Redis, views: FeatureSet, day0: Day0Files, by_us: int) -> int:
    """Everything that Redis should hold, moved by ``by_us``; how many writes. Raises redis.RedisError."""
    log = day0_views.moved(day0.views, by_us)
    script = redis.register_script(SCRIPT)
    count = 0
    for view in views.views:
        if view.kind == "instant":
            continue
        states = day0_views.states(view, log).items()
        calls = batches((_arguments(view, some) for some in batches(states, STATES_PER_CALL)), CALLS_AT_ONCE)
        for together in calls:
            await asyncio.gather(*(script(args=arguments) for arguments in together))
        count += len(states)
    for commands in batches(_sorted_sets(log, day0), COMMANDS_PER_CALL):
        async with redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            await pipe.execute()
        count += len(commands)
    return count


def _arguments(view: FeatureView, states: list[tuple[bytes, bytes]]) -> list[Argument]:
    prefix = redis_keys.view_prefix(view)
    return [ttl_s(view), *(part for entity, state in states for part in (prefix + entity, state))]


def _sorted_sets(log: EventLog, day0: Day0Files) -> Iterator[Command]:
    for hop, clicks in day0_views.popular(log).items():
        key = redis_keys.popular_key(hop)
        for some in batches(clicks.items(), MEMBERS_PER_COMMAND):
            yield ("ZADD", key, *(part for item, n in some for part in (n, item.to_bytes(8, "little"))))
        yield ("EXPIRE", key, redis_keys.POPULAR_TTL_S)
    yield from _co_clicks(day0)


async def complete(redis: Redis, day0: Day0Files) -> None:
    """Writes the marks of the cut behind day 0; the last thing, they say that a seed is complete."""
    for partition in range(PARTITIONS):
        await redis.hset(redis_keys.mark_key(partition), day0_views.ORIGIN, str(len(day0.views) - 1))


async def is_seeded(redis: Redis) -> bool:
    """Whether a seed has been completed here (or the loop has folded anything but the catalogue)."""
    for partition in range(PARTITIONS):
        marked = cast("dict[bytes, bytes]", await redis.hgetall(redis_keys.mark_key(partition)))
        if any(name != redis_keys.MARK_OFFSET and not name.startswith(_CATALOGUE) for name in marked):
            return True
    return False


def _co_clicks(day0: Day0Files) -> Iterator[Command]:
    order = np.argsort(day0.co_items, kind="stable")
    items, others, counts = day0.co_items[order], day0.co_others[order], day0.co_counts[order]
    starts = np.unique(items, return_index=True)[1].tolist()
    for start, end in zip(starts, [*starts[1:], len(items)][: len(starts)], strict=True):
        key = redis_keys.co_click_key(int(items[start]))
        pairs = zip(counts[start:end].tolist(), others[start:end].tolist(), strict=True)
        yield ("ZADD", key, *(part for n, other in pairs for part in (n, other.to_bytes(8, "little"))))
        yield ("EXPIRE", key, redis_keys.ENTITY_TTL_S)
