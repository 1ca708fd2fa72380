"""Stage 2, Redis: claiming a partition, reading states, writing rounds.

Ownership: whoever claimed a feature-events partition last owns it (a random token under
p:owner:<partition>). A write carries the token and the offset at which it begins; the script applies it only
when both are what Redis holds, so that

- a replica that lost its partition but does not know it yet changes nothing,
- a write that was applied although its answer was lost is recognised when it is tried again,
- a Redis that lost its data refuses, and the partition is claimed and folded again from the log's beginning.

A barrier is complete when every feature-events partition has passed it from every origin partition;
that is counted in Redis too, so it does not matter which replica folds what.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import cast

import redis.asyncio as redis

from services.contract import redis_keys, topics
from services.contract.errors import Conflict
from services.contract.feature_events import BARRIER_ORIGINS
from services.contract.feature_view import FeatureView
from services.contract.view_backfill import ViewStart, start_key
from services.feature_pipeline import metrics
from services.feature_pipeline.fold_batch import Section
from services.feature_pipeline.write_script import SCRIPT, arguments

BARRIER_PARTS = topics.FEATURE_EVENTS.partitions * len(BARRIER_ORIGINS)


# KEYS: owner, marks, view start. ARGV: token, definition. The hash, begun if it was not there; nothing when
# the partition has another owner. Where nothing has been folded, the view has no history to wait for.
BEGIN_SCRIPT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {} end
if redis.call('HEXISTS', KEYS[3], 'definition') == 0 then
  redis.call('HSET', KEYS[3], 'definition', ARGV[2])
  if redis.call('HEXISTS', KEYS[2], 'offset') == 1 then
    redis.call('HSET', KEYS[3], unpack(redis.call('HGETALL', KEYS[2])))
  else
    redis.call('HSET', KEYS[3], 'offset', '0', 'filled', '0', 'live', '1')
  end
end
return redis.call('HGETALL', KEYS[3])
"""
# KEYS: owner, marks, view start. ARGV: token, offset. 1: the view stands where the others do, and is live.
JOIN_SCRIPT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, 3 do if redis.call('HGET', KEYS[i], 'offset') ~= ARGV[2] then return 0 end end
redis.call('HSET', KEYS[3], 'live', '1')
return 1
"""


class Outcome(Enum):
    """What became of a section."""

    REPEAT = 0
    APPLIED = 1
    # Another owner, other offset, or a Redis without its data: claim again.
    REFUSED = 2


@dataclass(frozen=True)
class Claim:
    """A partition as Redis knows it. offset None = nothing has been folded into this Redis."""

    token: bytes
    offset: int | None
    marks: dict[str, int]


@dataclass(frozen=True)
class AddedView:
    """A view that was added while the loop ran, on one partition. ``start``: where it stands, as long as it
    is not ``live``."""

    start: ViewStart
    live: bool


class StateStore:
    """Raises ``redis.RedisError`` and ``OSError``; the worker tries again."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._script = client.register_script(SCRIPT)
        self._begin = client.register_script(BEGIN_SCRIPT)
        self._join = client.register_script(JOIN_SCRIPT)

    async def claim(self, partition: int) -> Claim:
        """Makes this process the owner and reads where the fold stands. Conflict: this Redis might forget
        that while states stay."""
        await self._require_lasting_marks()
        token = secrets.token_bytes(16)
        # One transaction: no write of the former owner can come between.
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.set(redis_keys.owner_key(partition), token)
            pipe.hgetall(redis_keys.mark_key(partition))
            _, stored = await pipe.execute()
        offset = stored.pop(redis_keys.MARK_OFFSET, None)
        marks = {name.decode(): int(sequence) for name, sequence in stored.items()}
        return Claim(token, None if offset is None else int(offset), marks)

    async def _require_lasting_marks(self) -> None:
        memory = await self._client.info("memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory") and policy.startswith("allkeys"):
            raise Conflict(
                f"Redis evicts by maxmemory-policy={policy}: set volatile-ttl, volatile-lru or noeviction, "
                "or it would forget marks beside states, and events would count twice"
            )

    async def pressure(self) -> tuple[int, int]:
        """(keys evicted since Redis started, bytes in use)."""
        stats, memory = await self._client.info("stats"), await self._client.info("memory")
        return stats["evicted_keys"], memory["used_memory"]

    async def forget(self, partition: int) -> None:
        """Drops the marks of a partition whose log has begun anew."""
        await self._client.delete(redis_keys.mark_key(partition))

    async def load(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The stored values, None where there is none."""
        values: list[bytes | None] = await self._client.mget(keys) if keys else []  # type: ignore[assignment]
        return values

    async def write(self, sections: Sequence[tuple[bytes, Section]]) -> list[Outcome]:
        """Writes (token, section) each as one transaction, all in one round trip."""
        started = time.monotonic()
        flat = arguments(sections, BARRIER_PARTS, time.time_ns() // 1000)
        answers = await self._script(keys=[redis_keys.BARRIER_KEY], args=flat)
        metrics.WRITE_SECONDS.observe(time.monotonic() - started)
        *codes, completed = answers
        metrics.BARRIERS.inc(completed)
        return [Outcome(code) for code in codes]

    async def begin_view(self, partition: int, token: bytes, view: FeatureView) -> AddedView:
        """Where an added view stands; from now on at the partition's own place if it was not there. Conflict:
        another owner."""
        keys = [redis_keys.owner_key(partition), *_places(partition, view)]
        flat = await self._begin(keys=keys, args=[token, b"%016x" % view.definition_hash])
        added = _added(dict(zip(flat[::2], flat[1::2], strict=True)))
        if added is None:
            raise Conflict(f"partition {partition} has another owner")
        return added

    async def added_view(self, partition: int, view: FeatureView) -> AddedView | None:
        """Where an added view stands."""
        stored = await self._client.hgetall(start_key(view, partition))
        return _added(cast("dict[bytes, bytes]", stored))

    async def join_view(self, partition: int, token: bytes, view: FeatureView, offset: int) -> bool:
        """Makes a view live that stands where the partition does; False when they do not, or not for us."""
        keys = [redis_keys.owner_key(partition), *_places(partition, view)]
        return bool(await self._join(keys=keys, args=[token, offset]))


def _places(partition: int, view: FeatureView) -> tuple[bytes, bytes]:
    return redis_keys.mark_key(partition), start_key(view, partition)


def _added(stored: dict[bytes, bytes]) -> AddedView | None:
    start = ViewStart.parse(stored)
    return None if start is None else AddedView(start, b"live" in stored)
