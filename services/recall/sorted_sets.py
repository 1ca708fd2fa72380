"""Reads the tops of many sorted sets of item ids in one round trip.

A script packs them on the server: parsing thousands of small replies in Python costs ten times the rest of a
request. Members are ids of 8 bytes little-endian; others are left out and counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from redis.asyncio import Redis

from services.recall.counts import NOTHING, Counted

# KEYS: sorted sets. ARGV[1]: how many of each. Answers members (packed), scores, sizes, bad members.
_TOPS = """
local members, scores, sizes, bad = {}, {}, {}, 0
for index, key in ipairs(KEYS) do
  local found = redis.call('ZREVRANGE', key, 0, ARGV[1] - 1, 'WITHSCORES')
  local size = 0
  for place = 1, #found, 2 do
    if #found[place] == 8 then
      size = size + 1
      members[#members + 1] = found[place]
      scores[#scores + 1] = found[place + 1]
    else
      bad = bad + 1
    end
  end
  sizes[index] = size
end
return {table.concat(members), table.concat(scores, ' '), table.concat(sizes, ' '), bad}
"""


class SortedSets:
    """Reads only. Raises what the Redis client raises."""

    def __init__(self, redis: Redis) -> None:
        self._tops = redis.register_script(_TOPS)

    async def tops(self, keys: Sequence[bytes], per_key: int) -> tuple[list[Counted], int]:
        """The ``per_key`` largest of each set, and how many members were no ids."""
        if not keys:
            return [], 0
        members, scores, sizes, bad = await self._tops(keys=list(keys), args=[per_key])
        ids = np.frombuffer(members, "<u8").astype(np.uint64)
        counts = np.array(scores.split(), np.float64) if scores else NOTHING.counts
        ends = np.cumsum([int(size) for size in sizes.split()])[:-1]
        parts = zip(np.split(ids, ends), np.split(counts, ends), strict=True)
        return [Counted(*part) for part in parts], int(bad)
