"""The fold's writes against real Redis: owned, once, together."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis.asyncio as redis

from services.contract import redis_keys
from services.contract.feature_events import BARRIER_ORIGINS
from services.contract.feature_sets import feature_set
from services.feature_pipeline.fold_batch import Section
from services.feature_pipeline.state_store import BARRIER_PARTS, Outcome, StateStore
from services.runtime import redis_client
from services.runtime.settings import RedisSettings

pytestmark = pytest.mark.integration
VIEW = feature_set("world").views[0]
STATE, OTHER = (redis_keys.view_key(VIEW, entity.to_bytes(8, "little")) for entity in (1, 9))
TTL_S = 12_345
POPULAR = (redis_keys.popular_key(3), (1).to_bytes(8, "little"))
CO_CLICK = (redis_keys.co_click_key(1), (2).to_bytes(8, "little"))


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.Redis]:
    made = redis_client.connect(RedisSettings(url=redis_url))
    yield made
    await made.aclose()


@pytest.fixture
def store(client: redis.Redis) -> StateStore:
    return StateStore(client)


def section(before: int, after: int, partition: int = 0) -> Section:
    made = Section(
        partition, before, after, redis_keys.mark_key(partition), states={STATE: (b"state %d" % after, TTL_S)}
    )
    made.marks = {"actions/1": after * 1024}
    made.popular[POPULAR] += 2
    made.co_clicks[CO_CLICK] += 1
    return made


async def test_everything_of_a_section_is_there_with_its_lifetime(
    store: StateStore, client: redis.Redis
) -> None:
    claim = await store.claim(0)
    assert (claim.offset, claim.marks) == (None, {})
    assert await store.write([(claim.token, section(-1, 5))]) == [Outcome.APPLIED]
    assert await store.load([STATE, OTHER]) == [b"state 5", None]
    assert await client.zscore(*POPULAR) == 2
    assert await client.zscore(*CO_CLICK) == 1
    assert 0 < await client.ttl(POPULAR[0]) <= redis_keys.POPULAR_TTL_S
    assert redis_keys.POPULAR_TTL_S < await client.ttl(CO_CLICK[0]) <= redis_keys.ENTITY_TTL_S
    assert TTL_S - 60 < await client.ttl(STATE) <= TTL_S
    again = await store.claim(0)
    assert (again.offset, again.marks) == (5, {"actions/1": 5 * 1024})


async def test_a_write_whose_answer_was_lost_is_not_applied_twice(
    store: StateStore, client: redis.Redis
) -> None:
    claim = await store.claim(0)
    await store.write([(claim.token, section(-1, 5))])
    assert await store.write([(claim.token, section(-1, 5))]) == [Outcome.REPEAT]
    assert await client.zscore(*POPULAR) == 2
    assert await store.write([(claim.token, section(5, 9))]) == [Outcome.APPLIED]
    assert await client.zscore(*POPULAR) == 4


async def test_a_replica_that_lost_its_partition_changes_nothing(
    store: StateStore, client: redis.Redis
) -> None:
    zombie = await store.claim(0)
    owner = await store.claim(0)
    # Even what would follow the stored offset.
    assert await store.write([(zombie.token, section(-1, 4))]) == [Outcome.REFUSED]
    assert await store.write([(owner.token, section(-1, 5))]) == [Outcome.APPLIED]
    late = [(zombie.token, section(-1, 7)), (owner.token, section(5, 6))]
    # The refused section does not disturb the one behind it.
    assert await store.write(late) == [Outcome.REFUSED, Outcome.APPLIED]
    assert await store.load([STATE]) == [b"state 6"]
    assert await client.zscore(*POPULAR) == 4


async def test_a_write_that_does_not_follow_the_stored_offset_is_refused(
    store: StateStore, client: redis.Redis
) -> None:
    claim = await store.claim(0)
    await store.write([(claim.token, section(-1, 5))])
    assert await store.write([(claim.token, section(6, 9))]) == [Outcome.REFUSED]
    await client.flushall()
    assert await store.write([(claim.token, section(5, 9))]) == [Outcome.REFUSED]
    assert (await store.claim(0)).offset is None


async def test_a_barrier_is_complete_when_every_partition_passed_it_from_every_origin(
    store: StateStore, client: redis.Redis
) -> None:
    async with client.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe(redis_keys.BARRIER_CHANNEL)
        await channel.get_message(timeout=1)
        for partition in range(BARRIER_PARTS // len(BARRIER_ORIGINS)):
            claim = await store.claim(partition)
            made = Section(partition, -1, 5, redis_keys.mark_key(partition))
            for topic, origin in BARRIER_ORIGINS:
                assert await client.hget(redis_keys.BARRIER_KEY, "b") is None
                made.barriers.append(("b", f"{partition}:{topic}/{origin}"))
            assert await store.write([(claim.token, made)]) == [Outcome.APPLIED]
        message = await channel.get_message(timeout=1)
    assert message is not None and message["data"] == b"b"
    assert int(await client.hget(redis_keys.BARRIER_KEY, "b") or 0) > 1_700_000_000_000_000
    assert await client.exists(redis_keys.passed_key("b")) == 0


async def test_only_the_last_barriers_and_the_strongest_co_clicks_are_kept(
    store: StateStore, client: redis.Redis
) -> None:
    full = {f"old{i}": i for i in range(redis_keys.BARRIERS_KEPT)}
    await client.hset(redis_keys.BARRIER_KEY, mapping=full)
    claim = await store.claim(0)
    made = Section(0, -1, 5, redis_keys.mark_key(0))
    made.barriers = [("new", f"{p}:{t}/{o}") for p in range(4) for t, o in BARRIER_ORIGINS]
    for other in range(redis_keys.CO_CLICK_KEEP + 20):
        made.co_clicks[CO_CLICK[0], other.to_bytes(8, "little")] += 1 + other
    await store.write([(claim.token, made)])
    kept = await client.hkeys(redis_keys.BARRIER_KEY)
    assert len(kept) == redis_keys.BARRIERS_KEPT and b"new" in kept and b"old0" not in kept
    assert await client.zcard(CO_CLICK[0]) == redis_keys.CO_CLICK_KEEP
    assert await client.zscore(CO_CLICK[0], (0).to_bytes(8, "little")) is None
