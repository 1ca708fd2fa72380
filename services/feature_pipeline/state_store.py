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

import redis.asyncio as redis

from services.contract import redis_keys, topics
from services.contract.feature_events import BARRIER_ORIGINS
from services.feature_pipeline import metrics
from services.feature_pipeline.fold_batch import Section
from services.feature_pipeline.write_script import SCRIPT, arguments

BARRIER_PARTS = topics.FEATURE_EVENTS.partitions * len(BARRIER_ORIGINS)


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


class StateStore:
    """Raises ``redis.RedisError`` and ``OSError``; the worker tries again."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._script = client.register_script(SCRIPT)

    async def claim(self, partition: int) -> Claim:
        """Makes this process the owner and reads where the fold stands."""
        token = secrets.token_bytes(16)
        # One transaction: no write of the former owner can come between.
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.set(redis_keys.owner_key(partition), token)
            pipe.hgetall(redis_keys.mark_key(partition))
            _, stored = await pipe.execute()
        offset = stored.pop(redis_keys.MARK_OFFSET, None)
        marks = {name.decode(): int(sequence) for name, sequence in stored.items()}
        return Claim(token, None if offset is None else int(offset), marks)

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
