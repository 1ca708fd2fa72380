"""How a view that is added while the loop runs gets its history: what the fold and a backfill job agree on.

For each partition of feature-events, in a hash at ``redis_keys.view_start_key``:

1. The fold sees the view on topic feature-views and copies its own place there between two rounds:
   ``offset``, the next offset of feature-events, and its marks, ``topic/partition`` -> last sequence. It goes
   on with the other views.
2. A backfill job makes the states of all entities that the partition owns (feature_events.owner) from all
   events at or below the marks (``ViewStart.cut``, for view_init), writes them under ``redis_keys.view_key``
   with ``view_ttl.ttl_s``, then runs FILL_SCRIPT. 1 = taken; 0 = the view has begun anew meanwhile: read the
   hash and make the states again.
3. The fold reads feature-events from ``offset`` for that view alone (``offset`` and marks move with the
   states, in one write). Where the others are, it sets ``live`` and folds it with them.

Every event is in the states once: those at or below the marks by the job, the others by the fold. A partition
into which nothing had been folded yet begins the view with the others, live at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.contract import redis_keys

DEFINITION, OFFSET, FILLED, LIVE = b"definition", redis_keys.MARK_OFFSET, b"filled", b"live"

# KEYS: the hash. ARGV: the definition and the offset that the states were made for.
FILL_SCRIPT = """
local said = redis.call('HMGET', KEYS[1], 'definition', 'offset', 'filled', 'live')
if said[1] ~= ARGV[1] or said[2] ~= ARGV[2] or said[3] or said[4] then return 0 end
redis.call('HSET', KEYS[1], 'filled', '1')
return 1
"""


def definition(definition_hash: int) -> bytes:
    """As it stands in the hash."""
    return b"%016x" % definition_hash


@dataclass(frozen=True)
class ViewStart:
    """One hash. ``offset`` None: the view began with the partition."""

    definition: bytes
    offset: int | None
    marks: dict[str, int]
    filled: bool
    live: bool

    @property
    def cut(self) -> dict[str, int]:
        """Per origin the first sequence that is not in the history; an origin that is not there has none."""
        return {origin: sequence + 1 for origin, sequence in self.marks.items()}


def parse(stored: Mapping[bytes, bytes]) -> ViewStart | None:
    """None when there is no hash."""
    if DEFINITION not in stored:
        return None
    marks = {name.decode(): int(value) for name, value in stored.items() if b"/" in name}
    offset = stored.get(OFFSET)
    return ViewStart(
        stored[DEFINITION], None if offset is None else int(offset), marks, FILLED in stored, LIVE in stored
    )
