"""Tables of batch features on a real folder and on a store in memory."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from oracles.slim_traffic import catalogue

from rec.events.v1 import events_pb2 as ev
from services.contract import view_store
from services.contract.batch_view import VERSION, VIEW, Table, table
from services.contract.errors import MalformedRecord, NotFound
from services.contract.lake_store import LakeStore

ROWS = catalogue(1, 1000, 10**15)


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path: Path) -> LakeStore:
    return LakeStore(
        str(tmp_path / "lake") if request.param == "folder" else f"memory://{uuid.uuid4().hex}/lake"
    )


def name(partition: int) -> ev.BatchView:
    return ev.BatchView(view=VIEW, version=VERSION, partition=partition)


def test_what_is_published_is_read_back_whole(store: LakeStore) -> None:
    assert view_store.partitions(store) == {}
    made = table(1, ROWS)
    view_store.publish(store, made)
    view_store.publish(store, table(2, ROWS[:10]))
    assert list(view_store.partitions(store)) == [1, 2]
    found = view_store.read(store, name(1))
    assert (found.partition, found.digest()) == (1, made.digest())
    assert found.item_ids.tolist() == [row[0] for row in ROWS]
    assert found.created_us.tolist() == [row[2] for row in ROWS]


def test_a_partition_is_created_once_and_never_overwritten(store: LakeStore) -> None:
    view_store.publish(store, table(1, ROWS))
    with pytest.raises(FileExistsError):
        view_store.publish(store, table(1, ROWS[:5]))
    assert len(view_store.read(store, name(1)).item_ids) == 1000


def test_a_partition_that_is_gone_or_of_another_view_is_not_found(store: LakeStore) -> None:
    for view in (name(9), ev.BatchView(view="other", version=1, partition=1), ev.BatchView()):
        with pytest.raises(NotFound, match="batch view"):
            view_store.read(store, view)


@pytest.mark.parametrize("cut", [0, 10, 100])
def test_a_damaged_partition_is_refused(store: LakeStore, cut: int) -> None:
    view_store.publish(store, table(1, ROWS))
    path = f"views/{VIEW}/v{VERSION}/{1:012d}.parquet"
    data = store.read(path)
    middle = len(data) // 3
    damaged = data[:-cut] if cut else data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    store.put(path, damaged)
    with pytest.raises(MalformedRecord):
        view_store.read(store, name(1))


def test_a_partition_that_is_whole_but_another_than_it_says_is_refused(
    store: LakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = table(1, ROWS)
    with monkeypatch.context() as other:
        other.setattr(Table, "digest", lambda self: 5)
        view_store.publish(store, made)
    with pytest.raises(MalformedRecord, match="digest"):
        view_store.read(store, name(1))


def test_a_partition_expires_by_the_age_of_what_replaced_it_and_the_newest_never(tmp_path: Path) -> None:
    store = LakeStore(str(tmp_path))
    for partition, age_s in ((1, 1000), (2, 500), (3, 50)):
        view_store.publish(store, table(partition, ROWS[:partition]))
        path = tmp_path / f"views/{VIEW}/v{VERSION}/{partition:012d}.parquet"
        os.utime(path, (10_000 - age_s, 10_000 - age_s))
    assert view_store.expire(store, 600, 10_000) == []
    assert view_store.expire(store, 400, 10_000) == [1]
    assert view_store.expire(store, 1, 20_000) == [2]
    assert list(view_store.partitions(store)) == [3]
