"""The script that writes sections, and its arguments. Keys are computed, so it is for one Redis, no cluster.

ARGV: entity TTL, popular TTL, co-clicks kept, passed TTL, barriers kept, parts of a barrier, wall time (us),
key prefix of passed barriers, number of sections; then per section: number of its arguments, owner key,
token, mark key, offset before, offset after, and counted lists: states (key, value, TTL), marks (origin,
sequence), popular (key, member, more), co-clicks (key, member, more), barriers (id, part).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from services.contract import redis_keys
from services.feature_pipeline.fold_batch import Section

# Stands for "no offset stored".
NO_OFFSET = b"-"

SCRIPT = """
local at = 0
local function take() at = at + 1; return ARGV[at] end
local entity_ttl, popular_ttl, co_kept, passed_ttl = take(), take(), tonumber(take()), take()
local barriers_kept, barrier_parts = tonumber(take()), tonumber(take())
local wall_us, passed_prefix = take(), take()
local barriers = KEYS[1]
local completed = 0

local function forget_oldest()
  local fields = redis.call('HGETALL', barriers)
  local oldest, oldest_at = nil, nil
  for i = 1, #fields, 2 do
    local passed_at = tonumber(fields[i + 1])
    if oldest_at == nil or passed_at < oldest_at then oldest, oldest_at = fields[i], passed_at end
  end
  redis.call('HDEL', barriers, oldest)
end

local function pass(id, part)
  local key = passed_prefix .. id
  redis.call('SADD', key, part)
  redis.call('EXPIRE', key, passed_ttl)
  if redis.call('SCARD', key) == barrier_parts then
    completed = completed + 1
    redis.call('DEL', key)
    redis.call('HSET', barriers, id, wall_us)
    if redis.call('HLEN', barriers) > barriers_kept then forget_oldest() end
    redis.call('PUBLISH', barriers, id)
  end
end

local function apply(mark_key, after)
  for _ = 1, tonumber(take()) do
    local key = take()
    local value = take()
    redis.call('SET', key, value, 'EX', take())
  end
  redis.call('HSET', mark_key, 'offset', after)
  for _ = 1, tonumber(take()) do
    local origin = take()
    redis.call('HSET', mark_key, origin, take())
  end
  for _ = 1, tonumber(take()) do
    local key, member = take(), take()
    redis.call('ZINCRBY', key, take(), member)
    redis.call('EXPIRE', key, popular_ttl)
  end
  for _ = 1, tonumber(take()) do
    local key, member = take(), take()
    redis.call('ZINCRBY', key, take(), member)
    redis.call('ZREMRANGEBYRANK', key, 0, -co_kept - 1)
    redis.call('EXPIRE', key, entity_ttl)
  end
  for _ = 1, tonumber(take()) do
    local id = take()
    pass(id, take())
  end
end

local outcomes = {}
for section = 1, tonumber(take()) do
  local size = tonumber(take())
  local stop = at + size
  local owner_key, token, mark_key, before, after = take(), take(), take(), take(), take()
  local stored = redis.call('HGET', mark_key, 'offset') or '-'
  if redis.call('GET', owner_key) ~= token then outcomes[section] = 2
  elseif stored == after then outcomes[section] = 0
  elseif stored ~= before then outcomes[section] = 2
  else
    apply(mark_key, after)
    outcomes[section] = 1
  end
  at = stop
end
outcomes[#outcomes + 1] = completed
return outcomes
"""

Argument = bytes | str | int


def arguments(sections: Sequence[tuple[bytes, Section]], barrier_parts: int, wall_us: int) -> list[Argument]:
    """ARGV for (token, section) each."""
    flat: list[Argument] = [
        redis_keys.ENTITY_TTL_S,
        redis_keys.POPULAR_TTL_S,
        redis_keys.CO_CLICK_KEEP,
        redis_keys.PASSED_TTL_S,
        redis_keys.BARRIERS_KEPT,
        barrier_parts,
        wall_us,
        redis_keys.passed_key(""),
        len(sections),
    ]
    for token, section in sections:
        body = _section(token, section)
        flat.append(len(body))
        flat.extend(body)
    return flat


def _section(token: bytes, section: Section) -> list[Argument]:
    before = NO_OFFSET if section.from_offset < 0 else section.from_offset
    body: list[Argument] = [
        redis_keys.owner_key(section.partition),
        token,
        section.mark_key,
        before,
        section.to_offset,
        len(section.states),
    ]
    for key, (value, ttl_s) in section.states.items():
        body += (key, value, ttl_s)
    body.append(len(section.marks))
    for origin, sequence in section.marks.items():
        body += (origin, sequence)
    _increments(body, section.popular)
    _increments(body, section.co_clicks)
    body.append(len(section.barriers))
    for barrier_id, part in section.barriers:
        body += (barrier_id, part)
    return body


def _increments(body: list[Argument], counts: Counter[tuple[bytes, bytes]]) -> None:
    body.append(len(counts))
    for (key, member), more in counts.items():
        body += (key, member, more)
