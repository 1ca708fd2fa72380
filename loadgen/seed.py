"""``python -m loadgen seed``: fills an empty stack with a world, or with the catalogue of a dataset.

1. Release is asked; when it has the arm ``online`` and Redis the marks of a seed, nothing is left to do.
2. Generation 1 is copied into the stack's model store (its times moved to the present) and registered:
   ranking, recall and the trainer load it meanwhile.
3. Redis gets the states that day 0 leaves, then Kafka the catalogue: its fold finds the states.
4. Redis gets the marks of the cut behind day 0, and the catalogue is folded: the seed is complete.

Every step can be repeated; a seed that was cut off is run again with the same world clock.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
from redis.exceptions import RedisError

from loadgen import (
    datasets,
    day0,
    day0_files,
    day0_views,
    seed_catalog,
    seed_redis,
    seed_settled,
    shift,
    world_clock,
)
from loadgen.day0_files import Day0Files
from loadgen.settings import SeedSettings
from loadgen.world_clock import WorldClock
from rec.events.v1.events_pb2 import Item
from rec.v1 import release_pb2, release_pb2_grpc
from services.contract.errors import Conflict, InvalidInput, LoopError, Unavailable
from services.contract.feature_sets import feature_set
from services.contract.ids import hash_key
from services.contract.lake_history import write_history
from services.contract.lake_store import LakeStore
from services.contract.model_schema import shape_of
from services.contract.model_store import SavedBase, copy_base, load_base, save_base
from services.contract.signature import Signer
from services.contract.times import set_us
from services.runtime import grpc_client, redis_client

ARM = "online"
REPLAY_DATA_NONE = "none"


def _say(text: str) -> None:
    print(f"seed: {text}", file=sys.stderr, flush=True)


def run(settings: SeedSettings) -> int:
    """Seeds; 0 when the stack is seeded afterwards. Raises LoopError by name otherwise."""
    began = time.monotonic()
    try:
        asyncio.run(_seed(settings))
    except grpc.aio.AioRpcError as error:
        raise Unavailable(
            f"release at {settings.release_target}: {error.code().name} {error.details()}"
        ) from error
    except RedisError as error:
        raise Unavailable(f"Redis at {settings.redis.url}: {error}") from error
    _say(f"done in {time.monotonic() - began:.1f} s")
    return 0


async def _seed(settings: SeedSettings) -> None:
    events = _dataset(settings)
    async with grpc_client.channel(settings.release_target, settings.grpc_client, settings.tls) as channel:
        release = Release(channel, settings.release_timeout_ms / 1000)
        registered = await release.has_arm(ARM)
        if events is None:
            await _seed_world(settings, release, registered)
        else:
            await _seed_dataset(settings, release, registered, events)


def _dataset(settings: SeedSettings) -> datasets.Events | None:
    if settings.world == "simulate":
        if settings.data != REPLAY_DATA_NONE:
            raise InvalidInput.one("data", settings.data, "none, unless --world replay")
        return None
    if settings.data == REPLAY_DATA_NONE:
        raise InvalidInput.one("data", settings.data, "a dataset, for --world replay")
    return datasets.load(Path(settings.data))


async def _seed_dataset(
    settings: SeedSettings, release: Release, registered: bool, events: datasets.Events
) -> None:
    listed = datasets.catalogue(Path(settings.data), events)
    items = [Item(item_id=hash_key(i.key), item_key=i.key, category=i.category) for i in listed]
    if not registered:
        manifest = day0.manifest_in(day0.untrained_base_folder(settings.feature_set, settings.model_seed))
        signer = Signer.read(settings.signing_key_file)
        await release.register(copy_base(str(manifest), settings.model_store_uri, signer=signer))
    count = await seed_catalog.write(settings.kafka, items)
    _say(f"catalogue of {count:,} items, untrained generation 1")
    await _settled(settings)


async def _seed_world(settings: SeedSettings, release: Release, registered: bool) -> None:
    redis = redis_client.connect(settings.redis)
    try:
        if registered and await seed_redis.is_seeded(redis):
            _say("this stack is seeded already")
            return
        folder = day0.day0_folder(settings.sim.config(), settings.feature_set)
        base = day0.base_folder(folder, settings.feature_set)
        files = day0_files.read(folder)
        clock = _clock(settings, registered)
        by_us = clock.origin_us - int(files.meta["end_us"])
        if not registered:
            await release.register(_moved_base(base, settings, by_us))
            _say("generation 1 is registered")
        if settings.lake_uri:
            history = day0_views.moved(files.views, by_us)
            await asyncio.to_thread(write_history, LakeStore(settings.lake_uri), "day0", history)
            _say(f"{len(history):,} events of day 0 to the lake")
        count = await seed_redis.write(redis, feature_set(settings.feature_set), files, by_us)
        _say(f"{count:,} writes to Redis")
        count = await seed_catalog.write(settings.kafka, _items(files, by_us))
        _say(f"catalogue of {count:,} items")
        await seed_redis.complete(redis, files)
    finally:
        await redis.aclose()
    await _settled(settings)


async def _settled(settings: SeedSettings) -> None:
    if settings.settle_timeout_ms:
        began = time.monotonic()
        await seed_settled.wait(settings.kafka, settings.settle_timeout_ms / 1000)
        _say(f"folded into features in {time.monotonic() - began:.1f} s")


def _clock(settings: SeedSettings, registered: bool) -> WorldClock:
    """The clock of a world that is already running here, else a new one."""
    config = settings.sim.config()
    if registered:
        try:
            return world_clock.read(settings.run_dir, config)
        except LoopError as error:
            raise Conflict(
                f"release has generation 1, but its world's clock cannot be read ({error}): "
                "empty the stack's Kafka and model store to begin anew"
            ) from error
    clock = WorldClock.starting(time.time_ns() // 1000)
    world_clock.write(settings.run_dir, clock, config)
    return clock


def _moved_base(base: Path, settings: SeedSettings, by_us: int) -> SavedBase:
    state, saved = load_base(str(day0.manifest_in(base)), shape_of(feature_set(settings.feature_set)))
    shift.model(state, by_us)
    return save_base(
        settings.model_store_uri,
        state,
        created_at_us=time.time_ns() // 1000,
        metrics=saved.manifest.get("metrics"),
        signer=Signer.read(settings.signing_key_file),
    )


def _items(files: Day0Files, by_us: int) -> Iterator[Item]:
    created = (files.created_us + by_us).tolist()
    rows = zip(files.item_ids.tolist(), files.item_keys, files.categories.tolist(), created, strict=True)
    for item_id, key, category, created_us in rows:
        item = Item(item_id=item_id, item_key=key, category=category)
        set_us(item.created_at, created_us)
        yield item


# Between two questions to a release that is not ready.
_ASK_AGAIN_S = 0.5


class Release:
    """The two questions that a seed has for release."""

    def __init__(self, channel: grpc.aio.Channel, timeout_s: float) -> None:
        self._stub = release_pb2_grpc.ReleaseServiceStub(channel)
        self._timeout_s = timeout_s

    async def has_arm(self, name: str) -> bool:
        """Whether the arm exists; waits for release to come up and to have read its log."""
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            try:
                answer = await self._stub.ListReleases(
                    release_pb2.ListReleasesRequest(), timeout=self._timeout_s, wait_for_ready=True
                )
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline_s:
                    raise
                await asyncio.sleep(_ASK_AGAIN_S)
            else:
                return any(release.arm == name for release in answer.releases)

    async def register(self, base: SavedBase) -> int:
        """Registers a full model; its generation number, which must be that of its manifest."""
        answer = await self._stub.RegisterGeneration(
            release_pb2.RegisterGenerationRequest(
                manifest_uri=base.manifest_uri, manifest_digest=base.manifest_digest
            ),
            timeout=self._timeout_s,
        )
        if answer.generation != base.generation:
            raise Conflict(f"release numbered {base.manifest_uri} {answer.generation}, not {base.generation}")
        return answer.generation
