"""Where an added view stands, in a real Redis: begun by the owner only, filled once, joined at one place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import redis.asyncio as redis

from services.contract import redis_keys
from services.contract.errors import Conflict
from services.contract.feature_sets import feature_set
from services.contract.view_backfill import FILLED, ViewStart, start_key
from services.feature_pipeline.fold_batch import Section
from services.feature_pipeline.state_store import AddedView, Outcome, StateStore
from services.runtime import redis_client
from services.runtime.settings import RedisSettings

pytestmark = pytest.mark.integration
WORLD = feature_set("world").views
VIEW = replace(WORLD[0], name="added")
MARKS = {"impressions/0": 9_217, "day0/0": 77}


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.Redis]:
    made = redis_client.connect(RedisSettings(url=redis_url))
    yield made
    await made.aclose()


async def folded(store: StateStore, offset: int = 5) -> bytes:
    """The token of an owner whose partition 0 stands at ``offset``."""
    claim = await store.claim(0)
    section = Section(0, -1, offset, redis_keys.mark_key(0), marks=dict(MARKS))
    assert await store.write([(claim.token, section)]) == [Outcome.APPLIED]
    return claim.token


def replayed(before: int, after: int) -> Section:
    return Section(0, before, after, start_key(VIEW, 0), marks={"impressions/0": 20_000})


async def test_a_view_begins_where_the_partition_stands_and_stays_there(client: redis.Redis) -> None:
    store = StateStore(client)
    token = await folded(store)
    added = await store.begin_view(0, token, VIEW)
    assert added == AddedView(ViewStart(VIEW.definition_hash, 5, MARKS), live=False)
    assert added.start.cut() == {"impressions/0": 9_218, "day0/0": 78}
    section = Section(0, 5, 9, redis_keys.mark_key(0), marks={"impressions/0": 10_000})
    assert await store.write([(token, section)]) == [Outcome.APPLIED]
    assert await store.begin_view(0, token, VIEW) == added == await store.added_view(0, VIEW)
    await client.hsetnx(start_key(VIEW, 0), FILLED, 7)
    filled = await store.added_view(0, VIEW)
    assert filled is not None and filled.start.filled == 7


async def test_only_the_owner_begins_or_joins(client: redis.Redis) -> None:
    store = StateStore(client)
    token = await folded(store)
    start = await store.begin_view(0, token, VIEW)
    await store.claim(0)
    assert not await store.join_view(0, token, VIEW, 5)
    assert await store.added_view(0, VIEW) == start
    with pytest.raises(Conflict, match="another owner"):
        await store.begin_view(0, token, replace(VIEW, version=2))
    assert await store.added_view(0, replace(VIEW, version=2)) is None


async def test_a_view_is_live_once_it_stands_where_the_others_do(client: redis.Redis) -> None:
    store = StateStore(client)
    token = await folded(store, 8)
    await store.begin_view(0, token, VIEW)
    await client.hset(start_key(VIEW, 0), "offset", 5)
    assert not await store.join_view(0, token, VIEW, 8)
    assert await store.write([(token, replayed(5, 8))]) == [Outcome.APPLIED]
    assert await store.write([(token, replayed(5, 8))]) == [Outcome.REPEAT]
    assert not await store.join_view(0, token, VIEW, 7)
    assert await store.join_view(0, token, VIEW, 8)
    added = await store.added_view(0, VIEW)
    assert added is not None and added.live and added.start.marks["impressions/0"] == 20_000
    # The others have not moved.
    assert (await store.claim(0)).marks == MARKS


async def test_where_nothing_was_folded_a_view_begins_with_the_others(client: redis.Redis) -> None:
    store = StateStore(client)
    await client.hset(redis_keys.mark_key(0), "day0/0", 77)
    claim = await store.claim(0)
    # A backfill leaves it alone: it is filled.
    assert await store.begin_view(0, claim.token, VIEW) == AddedView(
        ViewStart(VIEW.definition_hash, 0, {}, filled=0), live=True
    )
