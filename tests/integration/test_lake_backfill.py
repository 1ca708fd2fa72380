"""A view joins a running loop: its first states from the lake, the rest by the fold, on real Redis."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import redis.asyncio as redis
from lake_kit import Loop

from services.contract import redis_keys
from services.contract.errors import MalformedRecord, Unavailable
from services.contract.feature_events import owner
from services.contract.feature_sets import FEATURE_SETS
from services.contract.feature_view import FeatureView
from services.contract.lake_store import LakeStore
from services.contract.topics import FEATURE_EVENTS, entity_key
from services.contract.view_backfill import ViewStart, start_key
from services.contract.view_codec import canonical
from services.contract.view_events import Event
from services.contract.view_fold import OriginMarks, StateKey, ViewFold
from services.contract.view_registry import FeatureSet
from services.lake.backfill import Backfill, missing
from services.lake.view_commands import command
from services.lake.view_log import LakeEvents

pytestmark = pytest.mark.integration
SET = FEATURE_SETS["world"]
VIEWS = ("user_history", "item_activity", "user_clicks", "user_category", "item_catalogue")
PARTITIONS = range(FEATURE_EVENTS.partitions)


@pytest.fixture(scope="module")
def loop() -> Loop:
    return Loop(FeatureSet(SET.views)).run(150)


@pytest.fixture(scope="module")
def lake(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> str:
    return loop.write(tmp_path_factory.mktemp("backfill") / "lake")


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.Redis]:
    found = redis.Redis.from_url(redis_url)
    await found.flushdb()
    yield found
    await found.aclose()


def stream(loop: Loop, partition: int) -> list[Event]:
    """feature-events of one partition: what touches an entity that it owns, in the order of the log."""
    found = []
    for _, events in loop.online:
        for event in events:
            ids = [event.fields[name] for name in ("user_id", "item_id") if name in event.fields]
            if any(owner(entity_key(one)) == partition for one in ids):
                found.append(event)
    return found


def starts_of(loop: Loop, view: FeatureView, seed: int) -> dict[int, ViewStart]:
    """Each partition meets the view at another place of its stream."""
    rng, found = random.Random(seed), {}
    for partition in PARTITIONS:
        events = stream(loop, partition)
        marks = OriginMarks()
        at = rng.randrange(len(events) // 4, len(events) - 20)
        for event in events[:at]:
            marks.take(event.origin, event.sequence)
        found[partition] = ViewStart(view.definition_hash, at, marks.stored())
    return found


async def begin(client: redis.Redis, view: FeatureView, starts: Mapping[int, ViewStart]) -> None:
    for partition, start in starts.items():
        await client.hset(start_key(view, partition), mapping=start.fields())


async def states(client: redis.Redis, view: FeatureView) -> dict[StateKey, bytes]:
    prefix = redis_keys.view_prefix(view)
    keys = [key async for key in client.scan_iter(match=prefix + b"*", count=1000)]
    return {(view.definition_hash, key[len(prefix) :]): await client.get(key) for key in keys}


@pytest.mark.parametrize("name", VIEWS)
async def test_first_states_and_the_rest_of_the_stream_are_the_whole_stream(name, loop, lake, client) -> None:
    view = next(view for view in SET.views if view.name == name)
    starts = starts_of(loop, view, seed=len(name))
    await begin(client, view, starts)
    filled = await Backfill(client, LakeEvents(LakeStore(lake), 10**6), view, 5.0).run()
    stored = await states(client, view)
    assert sum(one.states for one in filled) == len(stored) > 5
    for partition in PARTITIONS:
        start = ViewStart.parse(await client.hgetall(start_key(view, partition)))
        assert start is not None and start.filled == filled[partition].states
        assert start.marks == starts[partition].marks
        # The fold's part: from O on, for this view alone, under its marks.
        fold = ViewFold(
            [view], OriginMarks(start.marks), stored.get, lambda entity, p=partition: owner(entity) == p
        )
        stored.update(fold.round(stream(loop, partition)[start.offset :]).states)
    whole = ViewFold([view], OriginMarks(), lambda key: None)
    assert stored == whole.round([event for _, events in loop.online for event in events]).states
    assert min([await client.ttl(key) async for key in client.scan_iter(match=b"f:*")]) > 86_400


async def test_what_is_filled_is_left_alone(loop, lake, client) -> None:
    view = SET.column("item_activity_ctr").view
    await begin(client, view, starts_of(loop, view, 1))
    events = LakeEvents(LakeStore(lake), 10**6)
    await Backfill(client, events, view, 5.0).run()
    (key, *_) = [key async for key in client.scan_iter(match=redis_keys.view_prefix(view) + b"*")]
    await client.set(key, b"folded since")
    again = await Backfill(client, events, view, 5.0).run()
    assert [(one.before, one.states) for one in again] == [(True, 0)] * len(PARTITIONS)
    assert await client.get(key) == b"folded since"


async def test_two_at_once_fill_each_partition_once_with_the_same_bytes(loop, lake, client) -> None:
    view = SET.column("user_activity_ctr").view
    await begin(client, view, starts_of(loop, view, 2))
    both = [Backfill(client, LakeEvents(LakeStore(lake), 10**6), view, 5.0).run() for _ in range(2)]
    lines = [line for lines in await asyncio.gather(*both) for line in lines]
    for partition in PARTITIONS:
        assert sorted(line.before for line in lines if line.partition == partition) == [False, True]
    assert len(await states(client, view)) == sum(line.states for line in lines)


async def test_it_waits_for_the_fold_and_says_for_which(loop, lake, client) -> None:
    view = SET.column("user_activity_ctr").view
    starts = starts_of(loop, view, 3)
    last = starts.pop(PARTITIONS[-1])
    await begin(client, view, starts)
    with pytest.raises(Unavailable, match=f"p:view:{PARTITIONS[-1]}:user_activity.1"):
        await Backfill(client, LakeEvents(LakeStore(lake), 10**6), view, 0.3).run()
    assert await states(client, view) == {}
    waiting = asyncio.ensure_future(Backfill(client, LakeEvents(LakeStore(lake), 10**6), view, 9.0).run())
    await asyncio.sleep(0.4)
    await begin(client, view, {PARTITIONS[-1]: last})
    assert all(line.waited_s > 0.3 for line in await waiting)


async def test_it_waits_for_the_lake_and_says_what_it_lacks(loop, tmp_path, client) -> None:
    view = SET.column("user_activity_ctr").view
    starts = starts_of(loop, view, 4)
    await begin(client, view, starts)
    with pytest.raises(Unavailable, match=r"the lake lacks actions/\d from 0 to \d+"):
        await Backfill(client, LakeEvents(LakeStore(str(tmp_path)), 10**6), view, 0.3).run()
    some = starts[0]
    held = {origin: sequence // 1024 + 1 for origin, sequence in some.marks.items()}
    assert missing(some, held) == []
    first = sorted(held)[0]
    assert missing(some, held | {first: held[first] - 1}) == [
        f"{first} from {held[first] - 1} to {held[first] - 1}"
    ]


async def test_a_start_of_another_definition_is_refused(loop, lake, client) -> None:
    view, other = SET.column("user_activity_ctr").view, SET.column("item_activity_ctr").view
    await begin(client, view, starts_of(loop, other, 5))
    with pytest.raises(MalformedRecord, match="definition"):
        await Backfill(client, LakeEvents(LakeStore(lake), 10**6), view, 1.0).run()


@pytest.fixture
def options(lake: str, redis_url: str) -> list[str]:
    return ["--lake_uri", lake, "--redis.url", redis_url, "--backfill_timeout_ms", "3000"]


@pytest.fixture
def definition(tmp_path: Path) -> str:
    path = tmp_path / "view.json"
    path.write_text(canonical(SET.column("item_popularity_clicks_decayed").view))
    return str(path)


async def test_the_command_fills_a_named_or_a_defined_view(loop, client, options, definition, capsys) -> None:
    view = SET.column("item_popularity_clicks_decayed").view
    await begin(client, view, starts_of(loop, view, 6))
    for which, before in ((["--definition", definition], False), (["--view", "item_popularity.1"], True)):
        assert await asyncio.to_thread(command, "backfill-view", [*options, *which]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["partition"] for line in lines] == list(PARTITIONS)
        assert {line["before"] for line in lines} == {before}
    for bad in ("item_popularity", "item_popularity.7", "nope.1"):
        assert await asyncio.to_thread(command, "backfill-view", [*options, "--view", bad]) == 2
