"""Ranking writes slim snapshots beside the whole ones: over real gRPC, with a lake in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracles.slim_traffic import catalogue
from ranking_kit import NOW_US, Chain, MemoryLog, MemoryProducer, rank_request, running, settings_for, until

from rec.events.v1 import events_pb2 as ev
from rec.v1 import ranking_pb2
from services.contract import times, topics, view_store
from services.contract.batch_view import Table, complete, table
from services.contract.lake_store import LakeStore
from tests.feature_kit import FEATURES


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path / "store")


def request_with(known: Table, seed: int) -> ranking_pb2.RankRequest:
    """A request whose items of ``known`` have its batch columns."""
    request = rank_request(seed, candidates=60, n=30)
    ids = np.frombuffer(request.item_ids, "<u8")
    rows = np.frombuffer(request.item_features, "<f4").reshape(len(ids), -1).copy()
    batch, found = known.columns_at(FEATURES, ids, NOW_US + seed)
    assert 10 < found.sum() < 60
    rows[np.ix_(found, FEATURES.batch)] = batch[found]
    request.item_features = rows.tobytes()
    return request


def snapshot_of(record) -> ev.FeatureSnapshot:
    return ev.EventRecord.FromString(record.value).snapshot


async def test_a_slim_snapshot_rebuilds_to_the_bytes_of_the_whole_one(chain: Chain, tmp_path: Path) -> None:
    lake = LakeStore(str(tmp_path / "lake"))
    rows = catalogue(1, 2000, NOW_US)
    known = table(1, [row for row in rows if row[0] % 3])
    producer = MemoryProducer()
    settings = settings_for(
        chain.store, slim_snapshots=True, lake_uri=lake.root, view_poll_ms=20, heartbeat_idle_ms=30
    )
    async with running(settings, MemoryLog(), producer, [chain.release("online", 1)]) as (replica, stub):
        slimmer = replica.slimmer
        assert slimmer is not None
        await stub.Rank(request_with(known, 1))
        view_store.publish(lake, known)
        await until(lambda: slimmer.table is not None)
        await stub.Rank(request_with(known, 2))
        view_store.publish(lake, table(2, rows))
        await until(lambda: slimmer.table is not None and slimmer.table.partition == 2)
        await stub.Rank(request_with(known, 3))
        request = ranking_pb2.RankingServiceEmitBarrierRequest(barrier_id="b", occurred_at=times.from_us(5))
        await stub.EmitBarrier(request)
        slim_records = [
            ev.EventRecord.FromString(one.value) for one in producer.of(topics.FEATURE_SNAPSHOTS_SLIM)
        ]
        barriers = [record for record in slim_records if record.HasField("barrier")]
        assert [record.barrier.barrier_id for record in barriers] == ["b"] * topics.EVENT_PARTITIONS
        before = len(producer.of(topics.FEATURE_SNAPSHOTS_SLIM))
        await until(lambda: len(producer.of(topics.FEATURE_SNAPSHOTS_SLIM)) >= before + 8)
    whole, thin = (
        [one for one in producer.of(topic) if ev.EventRecord.FromString(one.value).HasField("snapshot")]
        for topic in (topics.FEATURE_SNAPSHOTS, topics.FEATURE_SNAPSHOTS_SLIM)
    )
    assert [(one.key, one.partition) for one in whole] == [(one.key, one.partition) for one in thin]
    tables = {1: known, 2: table(2, rows)}
    inline = []
    for full, slim in zip(map(snapshot_of, whole), map(snapshot_of, thin), strict=True):
        inline.append(len(slim.slim.inline_rows) // 4)
        assert not full.HasField("slim")
        assert complete(slim, lambda view: tables[view.partition], FEATURES) is None
        assert slim.SerializeToString() == full.SerializeToString()
    # No table yet; then only what it does not know, and what the newer one says differently.
    assert inline[0] == 30
    assert 0 < inline[1] < 30
    assert 0 < inline[2] < 30


async def test_a_lake_that_fails_only_makes_snapshots_larger(chain: Chain, tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    path = folder / "views/item_catalog/v1/000000000001.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a table")
    producer = MemoryProducer()
    settings = settings_for(chain.store, slim_snapshots=True, lake_uri=str(folder), view_poll_ms=10)
    async with running(settings, MemoryLog(), producer, [chain.release("online", 1)]) as (replica, stub):
        failed = replica.metrics.view_failures._value
        was = failed.get()
        await until(lambda: failed.get() > was)
        await stub.Rank(rank_request())
    (record,) = producer.of(topics.FEATURE_SNAPSHOTS_SLIM)
    assert len(snapshot_of(record).slim.inline_rows) == 4 * 10


async def test_without_being_told_to_ranking_writes_no_slim_snapshots(chain: Chain) -> None:
    producer = MemoryProducer()
    async with running(settings_for(chain.store), MemoryLog(), producer, [chain.release("online", 1)]) as (
        replica,
        stub,
    ):
        await stub.Rank(rank_request())
    assert replica.slimmer is None
    assert producer.of(topics.FEATURE_SNAPSHOTS_SLIM) == []
