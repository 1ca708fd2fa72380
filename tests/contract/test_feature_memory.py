"""What states cost in a real Redis, and what an eviction leaves of them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import redis as redis_sync
from redis.asyncio import Redis

from services.contract import redis_keys
from services.contract.errors import Conflict
from services.contract.feature_sets import feature_set
from services.contract.view_plan import plan_of
from services.contract.view_read import read, records_of
from services.contract.view_state import ViewState
from services.contract.view_ttl import ttl_s
from services.feature_pipeline.fold_batch import Section
from services.feature_pipeline.memory import measure, table
from services.feature_pipeline.state_store import Outcome, StateStore
from services.runtime import redis_client
from services.runtime.settings import RedisSettings

pytestmark = pytest.mark.integration
VIEWS = [view for view in feature_set("world").views if view.kind != "instant"]
DOCUMENT = Path(__file__).parents[2] / "ARCHITECTURE.md"
NOW = 1_760_000_000_000_000


@pytest.fixture
async def client(private_redis) -> AsyncIterator[Redis]:
    made = redis_client.connect(RedisSettings(url=private_redis.url))
    yield made
    await made.aclose()


def states(count: int) -> dict[bytes, tuple[bytes, int]]:
    """Of ``count`` entities of each view."""
    found = {}
    for view in VIEWS:
        for number in range(count):
            state = ViewState(plan_of(view))
            state.values[2] = NOW
            entity = b"".join(
                (number + 7_000_000_000 * i).to_bytes(8, "little") for i, _ in enumerate(view.key)
            )
            found[redis_keys.view_key(view, entity)] = state.pack(), ttl_s(view)
    return found


def documented() -> dict[str, tuple[int, int]]:
    """view -> (bytes of a value, bytes in Redis), of ARCHITECTURE.md."""
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \|", DOCUMENT.read_text(), re.MULTILINE)
    return {name: (int(value), int(used)) for name, value, used in rows}


async def test_what_an_entity_costs_is_what_the_documentation_says(client: Redis, private_redis) -> None:
    store = StateStore(client)
    claim = await store.claim(0)
    assert await store.write(
        [(claim.token, Section(0, -1, 5, redis_keys.mark_key(0), states=states(300)))]
    ) == [Outcome.APPLIED]
    with redis_sync.Redis.from_url(private_redis.url) as plain:
        rows = list(measure(plain, VIEWS, 100))
        used = plain.info("memory")["used_memory_dataset"]
    said = documented()
    assert said.keys() == {view.name for view in VIEWS}
    for row in rows:
        value_bytes, redis_bytes = said[row.view.split(".")[0]]
        assert (row.entities, row.value_bytes) == (300, value_bytes)
        # Redis versions differ by an allocator's size class.
        assert abs(row.redis_bytes - redis_bytes) <= 48
    assert 0.5 < sum(row.total_bytes for row in rows) / used < 1.5
    assert table(rows).count("\n") == len(VIEWS) + 1


async def test_an_eviction_leaves_whole_states_or_none_and_the_marks(client: Redis) -> None:
    store = StateStore(client)
    claim = await store.claim(0)
    await client.config_set("maxmemory", int((await client.info("memory"))["used_memory"]) + 3_000_000)
    await client.config_set("maxmemory-policy", "volatile-ttl")
    offset, wanted = -1, list(states(4_000).items())
    for start in range(0, len(wanted), 2_000):
        section = Section(
            0, offset, start + 1, redis_keys.mark_key(0), states=dict(wanted[start : start + 2_000])
        )
        section.marks = {"impressions/0": start}
        assert await store.write([(claim.token, section)]) == [Outcome.APPLIED]
        offset = start + 1
    again = await store.claim(0)
    assert (again.offset, again.marks) == (offset, {"impressions/0": offset - 1})
    gone = 0
    for view in VIEWS:
        plan = plan_of(view)
        keys = [key for key, _ in wanted if key.startswith(redis_keys.view_prefix(view))]
        values = await store.load(keys)
        assert all(value is None or plan.readable(value) for value in values)
        candidate = {name: np.zeros(len(keys), np.uint64) for name in view.operands}
        said = read(view, records_of(plan, values), np.full(len(keys), NOW + 1), candidate)
        absent = np.array([value is None for value in values])
        assert (said.missing == absent).all()
        default = np.float32([feature.default for feature in view.features])
        assert (said.values[absent].astype(np.float32) == default).all()
        gone += int(absent.sum())
    # Reading needs memory too, so that more may have gone since.
    assert 1_000 < gone <= (await store.pressure())[0]


async def test_a_redis_that_may_forget_marks_is_refused(client: Redis) -> None:
    await client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(Conflict, match="maxmemory-policy=allkeys-lru"):
        await StateStore(client).claim(0)
    await client.config_set("maxmemory", 0)
    assert (await StateStore(client).claim(0)).offset is None
