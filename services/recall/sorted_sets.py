"""Reads the tops of many sorted sets of item ids in one round trip.

A script packs them on the server: parsing thousands of small replies in Python costs ten times the rest of a
request. Redis knows a script by its text, which is sent each time and is shorter than the keys. Members are
ids of 8 bytes little-endian; others are left out and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from services.recall.counts import NOTHING, Counted
from services.runtime.redis_reader import RedisReader
from services.runtime.resp import command

# KEYS: sorted sets. ARGV[1]: how many of each. Answers members (packed), scores, sizes, bad members.
_TOPS = b"""
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
return {table.concat(members), table.concat(scores, ' '), table.concat(sizes, ' '), tostring(bad)}
"""


class SortedSets:
    """Reads only. Raises OSError, as the reader does; TimeoutError, which is one, after ``timeout_s``."""

    def __init__(self, redis: RedisReader, timeout_s: float) -> None:
        self._redis = redis
        self._timeout_s = timeout_s

    async def tops(self, keys: Sequence[bytes], per_key: int) -> tuple[list[Counted], int]:
        """The ``per_key`` largest of each set, and how many members were no ids."""
        if not keys:
            return [], 0
        request = command(b"EVAL", _TOPS, b"%d" % len(keys), *keys, b"%d" % per_key)
        try:
            async with asyncio.timeout(self._timeout_s):
                members, scores, sizes, bad = await self._redis.ask(request)
        except TimeoutError:
            # Whatever hangs, the next request finds a connection of its own.
            self._redis.drop("no answer in time")
            raise
        ids = np.frombuffer(members, "<u8").astype(np.uint64)
        counts = np.array(scores.split(), np.float64) if scores else NOTHING.counts
        ends = [0, *accumulate(int(size) for size in sizes.split())]
        return [Counted(ids[begin:end], counts[begin:end]) for begin, end in pairwise(ends)], int(bad)
