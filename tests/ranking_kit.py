"""What the tests of ranking share: a trainer-like writer of a chain, a log in memory, requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from rec.model.v1 import model_pb2
from rec.v1 import ranking_pb2, ranking_pb2_grpc
from services.contract import delta, model_schema, model_state, model_store, times, topics
from services.contract.errors import NotFound, Unavailable
from services.contract.model_schema import ModelShape
from services.contract.model_state import ModelState
from services.contract.trace_ids import SpanRef
from services.contract.view_registry import FeatureSet
from services.ranking.delta_feed import FeedRecord
from services.ranking.replica import Replica
from services.ranking.served_sets import ServedSets
from services.ranking.settings import Settings
from services.runtime.grpc_client import channel
from services.runtime.process import Process
from services.runtime.settings import GrpcServerSettings
from tests.feature_kit import FEATURES, SHAPE

USERS, ITEMS, CATEGORIES = 20, 400, 8
LINEAGE = model_pb2.Lineage(generation=1, policy="online")
PARTITION = topics.partition_of(topics.lineage_key(1, "online"), topics.MODEL_DELTAS.partitions)
NOW_US = 1_700_000_000_000_000


def random_body(rng: np.random.Generator, rows: int, model: ModelShape = SHAPE) -> delta.Body:
    """New values of some users, items and all dense tensors; some items leave."""
    ids = np.sort(rng.choice(ITEMS, rows, replace=False)).astype(np.uint64)
    leaving = np.array([ITEMS + rng.integers(0, 5)], dtype=np.uint64)
    tables = (
        _rows(rng, "user", np.arange(USERS, dtype=np.uint64)),
        _rows(rng, "item", ids, leaving),
        _rows(rng, "category", np.arange(CATEGORIES, dtype=np.uint64)),
    )
    dense = tuple(
        delta.DenseChange(
            name,
            rng.normal(0, 0.1, shape).astype(np.float32),
            rng.random(shape, dtype=np.float32),
        )
        for name, shape in model.dense.items()
    )
    return delta.Body(tables, dense)


def _rows(
    rng: np.random.Generator, table: str, ids: np.ndarray, expired: np.ndarray | None = None
) -> delta.TableChange:
    n = len(ids)
    return delta.TableChange(
        table,
        ids,
        rng.normal(0, 0.3, (n, model_schema.ROW_WIDTH)).astype(np.float32),
        rng.random((n, model_schema.OPTIMIZER_WIDTH), dtype=np.float32),
        rng.integers(1, 99, n).astype(np.uint32),
        rng.integers(0, NOW_US, n),
        np.empty(0, np.uint64) if expired is None else expired,
    )


class Chain:
    """The writer of lineage (1, online): its state, and a copy of it at every sequence."""

    def __init__(self, store: Path, seed: int = 7, shape: ModelShape = SHAPE) -> None:
        self.store = store
        self.rng = np.random.default_rng(seed)
        self.state = ModelState(shape)
        body = random_body(self.rng, ITEMS, shape)
        for change in body.tables:
            self.state.tables[change.table].apply(change)
        for tensor in body.dense if shape is not SHAPE else ():
            self.state.dense[tensor.name][...] = tensor.values
        saved = model_store.save_base(str(store), self.state, created_at_us=NOW_US)
        self.state.chain_hash = saved.manifest_digest
        self.epoch = 1
        self.base = self.base_ref(saved, 0)
        self.at = {0: self.state.copy()}
        self.values: dict[int, bytes] = {}

    def base_ref(self, saved: model_store.SavedBase, delta_offset: int) -> model_pb2.BaseRef:
        return model_pb2.BaseRef(
            manifest_uri=saved.manifest_uri,
            manifest_digest=saved.manifest_digest,
            sequence=saved.sequence,
            chain_hash=saved.chain_hash,
            epoch=saved.epoch,
            delta_partition=PARTITION,
            delta_offset=delta_offset,
        )

    def save_base(self, delta_offset: int) -> model_pb2.BaseRef:
        """The state as it is now as a base of the lineage."""
        saved = model_store.save_base(
            str(self.store), self.state, created_at_us=NOW_US, delta_offset=delta_offset
        )
        return self.base_ref(saved, delta_offset)

    def header(self, **changes: object) -> delta.Header:
        wanted = {
            "generation": 1,
            "policy": "online",
            "sequence": self.state.sequence + 1,
            "epoch": self.epoch,
            "previous_hash": self.state.chain_hash,
            "created_at_us": NOW_US + self.state.sequence,
            "model_hash": self.state.shape.model_hash,
            "sample_offsets": {0: self.state.sequence},
        }
        return delta.Header(**{**wanted, **changes})

    def next(self, rows: int = 40, barriers: tuple[str, ...] = ()) -> bytes:
        """The next delta's record, already part of the writer's own state."""
        header = self.header(barrier_ids=barriers)
        body = random_body(self.rng, rows, self.state.shape)
        value, delta_hash = delta.seal(header, body)
        model_state.apply(self.state, header, body, delta_hash)
        self.at[header.sequence] = self.state.copy()
        self.values[header.sequence] = value
        return value

    def forged(self, **changes: object) -> bytes:
        """A well-formed delta that is not of this chain."""
        return delta.seal(self.header(**changes), random_body(self.rng, 10))[0]

    def digest(self, sequence: int | None = None) -> bytes:
        return model_state.digest(self.state if sequence is None else self.at[sequence])

    def release(
        self, arm: str, revision: int, base: model_pb2.BaseRef | None = None, **more: object
    ) -> model_pb2.Release:
        wanted = {
            "arm": arm,
            "lineage": LINEAGE,
            "base": base or self.base,
            "state": model_pb2.RELEASE_STATE_SERVING,
            "revision": revision,
        }
        return model_pb2.Release(**(wanted | more))


class MemoryLog:
    """One partition in memory. ``fault(offset, value)`` may alter (or, by None, hide) what a reader gets."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        # That wrote a record, by offset.
        self.spans: dict[int, SpanRef] = {}
        self.begin = 0
        self.away = False
        self.fault: Callable[[int, bytes], bytes | None] = lambda _, value: value
        self._news = asyncio.Event()

    def append(self, *values: bytes) -> None:
        self.records.extend(values)
        self._news.set()
        self._news = asyncio.Event()

    def feed(self, _arm: str) -> MemoryFeed:
        return MemoryFeed(self)

    async def changed(self) -> None:
        try:
            await asyncio.wait_for(self._news.wait(), 0.02)
        except TimeoutError:
            return


class MemoryFeed:
    """A reader of the log, as KafkaDeltaFeed."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._next = 0

    async def start(self, partition: int, offset: int) -> None:
        self._next = offset

    def seek(self, offset: int) -> None:
        self._next = offset

    async def poll(self) -> list[FeedRecord]:
        if self._log.away:
            raise Unavailable("the log is away")
        if self._next < self._log.begin:
            raise NotFound("the offset is gone")
        if self._next >= len(self._log.records):
            await self._log.changed()
        found = []
        for offset in range(self._next, min(len(self._log.records), self._next + 4)):
            value = self._log.fault(offset, self._log.records[offset])
            if value is not None:
                found.append(FeedRecord(offset, value, 0, self._log.spans.get(offset)))
            self._next = offset + 1
        return found

    async def at_end(self) -> bool:
        return self._next >= len(self._log.records)

    async def stop(self) -> None:
        return None


class MemoryProducer:
    """Acknowledges at once and remembers; ``stalled`` and ``failing`` as the test sets them."""

    def __init__(self) -> None:
        self.sent: list[SimpleNamespace] = []
        self.stalled = False
        self.failing = False
        self.pending = 0

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None

    async def flush(self) -> None:
        return None

    def send_nowait(self, topic, value, key=None, headers=None, partition=None) -> asyncio.Future:
        future = asyncio.get_running_loop().create_future()
        if self.failing:
            raise Unavailable("Kafka is away")
        self.sent.append(
            SimpleNamespace(topic=topic, value=value, key=key, headers=headers, partition=partition)
        )
        future.set_result(None)
        return future

    def of(self, topic: topics.Topic) -> list[SimpleNamespace]:
        return [record for record in self.sent if record.topic == topic.name]


def rank_request(
    seed: int = 1, candidates: int = 100, n: int = 10, features: FeatureSet = FEATURES, **changes: object
) -> ranking_pb2.RankRequest:
    """A valid request; the same seed gives the same bytes."""
    rng = np.random.default_rng(seed)
    items = rng.normal(0, 1, (candidates, features.item_width)).astype(np.float32)
    items[:, features.category_column] = rng.integers(0, CATEGORIES, candidates)
    ids = rng.choice(max(2 * ITEMS, 2 * candidates), candidates, replace=False)
    wanted = {
        "request_id": f"r-{seed}",
        "user_id": int(rng.integers(0, USERS)),
        "occurred_at": times.from_us(NOW_US + seed),
        "n": n,
        "item_ids": ids.astype("<u8").tobytes(),
        "schema_hash": features.schema_hash,
        "user_features": rng.normal(0, 1, features.user_width).astype("<f4").tobytes(),
        "item_features": items.astype("<f4").tobytes(),
    }
    return ranking_pb2.RankRequest(**{**wanted, **changes})


def settings_for(store: Path, **changes: object) -> Settings:
    return Settings(
        grpc=GrpcServerSettings(port=0),
        model_store_uri=str(store),
        replica="test-replica",
        base_retry_ms=50,
        **changes,
    )


@asynccontextmanager
async def running(
    settings: Settings,
    log: MemoryLog,
    producer: MemoryProducer,
    releases: list[model_pb2.Release],
    sets: ServedSets | None = None,
) -> AsyncIterator[tuple[Replica, ranking_pb2_grpc.RankingServiceStub]]:
    """A replica over real gRPC, serving, with its log and producer in memory."""
    process = Process(settings)
    try:
        replica = Replica(process, settings, log.feed, producer, sets)  # type: ignore[arg-type]
        await replica.start()
        for release in releases:
            replica.arms.take(release)
        await asyncio.wait_for(replica.until_serving(), 20)
        async with channel(f"127.0.0.1:{replica.server.port}") as open_channel:
            yield replica, ranking_pb2_grpc.RankingServiceStub(open_channel)
    finally:
        await process.close()
    if process.failure is not None:
        raise process.failure


async def until(reached: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Waits until something holds; fails after the timeout."""
    async with asyncio.timeout(timeout_s):
        while not reached():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


def sequence_of(replica: Replica, arm: str = "online") -> int:
    model = replica.arms.serving.get(arm)
    return -1 if model is None else model.state.sequence
