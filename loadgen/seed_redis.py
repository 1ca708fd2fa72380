"""Writes feature state to Redis. Every write is absolute: a cut-off seed can run again.

A script takes thousands of commands in one call: as many replies would cost a client without a compiled
parser three seconds. Its keys are computed, so it is for one Redis, no cluster.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from loadgen import shift
from loadgen.batches import batches
from loadgen.day0_files import Day0Files
from services.contract import redis_keys
from services.contract.columns import U64, encode

COMMANDS_PER_CALL = 2_000
# A script can hand on some thousand arguments to one command.
MEMBERS_PER_COMMAND = 1_000
Argument = bytes | str | int
Command = tuple[Argument, ...]

# ARGV: of each command the number of its parts, then the parts.
SCRIPT = """
local at = 1
while at <= #ARGV do
  local parts = tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, at + parts))
  at = at + parts + 1
end
"""


def commands(day0: Day0Files, by_us: int) -> Iterator[Command]:
    """Everything that Redis should hold, as commands, moved by ``by_us``."""
    items = shift.item_states(day0.item_states, by_us)
    yield from _sets(redis_keys.item_keys(encode(day0.item_ids, U64)), items)
    users = shift.user_states(day0.user_states, by_us)
    yield from _sets([redis_keys.user_key(user) for user in day0.user_ids.tolist()], users)
    for hop, clicks in shift.popular(day0.click_items, day0.click_us, by_us).items():
        key = redis_keys.popular_key(hop)
        for some in batches(clicks.items(), MEMBERS_PER_COMMAND):
            yield ("ZADD", key, *(part for item, n in some for part in (n, item.to_bytes(8, "little"))))
        yield ("EXPIRE", key, redis_keys.POPULAR_TTL_S)
    yield from _co_clicks(day0)


def totals(day0: Day0Files) -> list[Command]:
    """The two totals; written last, they say that a seed is complete."""
    return [
        ("SET", redis_keys.GLOBAL_CLICKS_KEY, day0.meta["clicks"]),
        ("SET", redis_keys.GLOBAL_IMPRESSIONS_KEY, day0.meta["impressions"]),
    ]


async def is_seeded(redis: Redis) -> bool:
    """Whether a seed has been completed here (or the loop has folded anything)."""
    return bool(await redis.exists(redis_keys.GLOBAL_IMPRESSIONS_KEY))


async def write(redis: Redis, wanted: Iterator[Command] | list[Command]) -> int:
    """Runs commands in order; returns how many. Raises redis.RedisError."""
    script = redis.register_script(SCRIPT)
    count = 0
    for some in batches(wanted, COMMANDS_PER_CALL):
        arguments: list[Argument] = []
        for command in some:
            arguments.append(len(command))
            arguments.extend(command)
        await script(args=arguments)
        count += len(some)
    return count


def _sets(keys: list[bytes], records: NDArray) -> Iterator[Command]:
    size, data = records.dtype.itemsize, records.tobytes()
    for index, key in enumerate(keys):
        yield ("SET", key, data[index * size : (index + 1) * size], "EX", redis_keys.ENTITY_TTL_S)


def _co_clicks(day0: Day0Files) -> Iterator[Command]:
    order = np.argsort(day0.co_items, kind="stable")
    items, others, counts = day0.co_items[order], day0.co_others[order], day0.co_counts[order]
    starts = np.flatnonzero(np.diff(items, prepend=items[:1] + np.uint64(1))).tolist()
    for start, end in zip(starts, [*starts[1:], len(items)], strict=True):
        key = redis_keys.co_click_key(int(items[start]))
        pairs = zip(counts[start:end].tolist(), others[start:end].tolist(), strict=True)
        yield ("ZADD", key, *(part for n, other in pairs for part in (n, other.to_bytes(8, "little"))))
        yield ("EXPIRE", key, redis_keys.ENTITY_TTL_S)
