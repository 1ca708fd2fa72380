"""What states cost in Redis: per view the bytes of a value, what Redis uses for one (MEMORY USAGE: key, value
and their overhead), how many there are, and how long they live.

An eviction never yields half a row: the state of an entity under a view is one value. What was evicted is
missing, so features say their defaults (the feature server counts it), and the next event begins it anew
unless the fold still holds it. Marks have no TTL, so under a ``volatile-*`` policy they stay; under
``allkeys-*`` they could go while states stay, and events would count twice: the fold refuses that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from redis import Redis

from services.contract import redis_keys
from services.contract.feature_view import FeatureView
from services.contract.view_plan import plan_of
from services.contract.view_ttl import ttl_s

_SCAN = 5_000


@dataclass(frozen=True)
class ViewMemory:
    """``redis_bytes``: the mean of a sample of entities, 0 without entities."""

    view: str
    value_bytes: int
    redis_bytes: float
    entities: int
    ttl_s: int

    @property
    def total_bytes(self) -> int:
        """Of all entities."""
        return round(self.redis_bytes * self.entities)


def measure(client: Redis, views: Sequence[FeatureView], sample: int) -> Iterator[ViewMemory]:
    """Of every view with states. Raises redis.RedisError. Reads key names only, a few thousand at a time."""
    for view in views:
        if view.kind == "instant":
            continue
        pattern = redis_keys.view_prefix(view) + b"*"
        keys = client.scan_iter(match=pattern, count=_SCAN)
        first = list(islice(keys, sample))
        sizes = [client.memory_usage(key) or 0 for key in first]
        yield ViewMemory(
            view.full_name,
            plan_of(view).layout.size,
            sum(sizes) / max(len(sizes), 1),
            len(first) + sum(1 for _ in keys),
            ttl_s(view),
        )


def table(rows: Sequence[ViewMemory]) -> str:
    """For people."""
    lines = [f"{'view':32}{'value B':>9}{'Redis B':>9}{'entities':>11}{'total MB':>10}{'TTL h':>7}"]
    lines += [
        f"{row.view:32}{row.value_bytes:>9}{row.redis_bytes:>9.0f}{row.entities:>11,}"
        f"{row.total_bytes / 1e6:>10.2f}{row.ttl_s / 3600:>7.0f}"
        for row in rows
    ]
    entities, total = sum(row.entities for row in rows), sum(row.total_bytes for row in rows)
    return "\n".join([*lines, f"{'all':50}{entities:>11,}{total / 1e6:>10.2f}"])
