"""Which partitions the lake's host has open while its group shares them out anew."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from services.contract.errors import Conflict
from services.contract.lake_rows import LogRecord
from services.contract.lake_store import LakeStore
from services.contract.topics import ACTIONS
from services.lake.host import LakeHost
from services.lake.settings import Settings
from services.runtime.kafka_consumer import TopicPartition

KEPT, LOST = TopicPartition(ACTIONS.name, 0), TopicPartition(ACTIONS.name, 1)


class Client:
    """aiokafka's, of empty partitions: between revoked and assigned it still names the old ones."""

    def __init__(self, *owned: TopicPartition) -> None:
        self.owned = set(owned)

    def assignment(self) -> set[TopicPartition]:
        return self.owned

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    end_offsets = beginning_offsets

    def seek(self, where: TopicPartition, offset: int) -> None:
        assert where in self.owned and offset == 0


def host_of(lake: Path) -> LakeHost:
    settings = Settings(lake_uri=str(lake), release_timeout_ms=50)
    return LakeHost(settings, LakeStore(str(lake)))


async def test_nothing_is_opened_while_the_group_shares_out(tmp_path: Path) -> None:
    host = host_of(tmp_path)
    client = host.reader._client = Client(KEPT, LOST)
    group = host.reader._listener
    await group.on_partitions_assigned({KEPT, LOST})
    await host._open_new()
    assert host.ready and set(host.parts) == {KEPT, LOST}

    await group.on_partitions_revoked({KEPT, LOST})
    # The host's own task goes on meanwhile, and the client still names both.
    await host._open_new()
    assert not host.parts and not host.ready
    client.owned = {KEPT}
    await group.on_partitions_assigned({KEPT})
    assert not host.ready
    await host._open_new()
    assert host.ready and set(host.parts) == {KEPT}


async def test_what_was_being_opened_when_it_went_is_not_kept(tmp_path: Path) -> None:
    host = host_of(tmp_path)
    client = host.reader._client = Client(LOST)
    group, asked, answer = host.reader._listener, asyncio.Event(), asyncio.Event()

    async def slow(partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        asked.set()
        await answer.wait()
        return dict.fromkeys(partitions, 0)

    client.end_offsets = slow
    await group.on_partitions_assigned({LOST})
    opening = asyncio.create_task(host._open_new())
    await asked.wait()
    await group.on_partitions_revoked({LOST})
    answer.set()
    await opening
    assert not host.parts


async def test_a_flush_that_is_refused_after_the_group_has_shared_out_anew_ends_nothing(
    tmp_path: Path,
) -> None:
    host = host_of(tmp_path)
    host.reader._client = Client(KEPT)
    await host.reader._listener.on_partitions_assigned({KEPT})
    await host._open_new()
    part, begun, shared_out = host.parts[KEPT], threading.Event(), threading.Event()

    def refused(_records: list[LogRecord], _first: int) -> None:
        begun.set()
        assert shared_out.wait(10)
        raise Conflict("another writer")

    part.writer.flush = refused
    part.buffer.add(LogRecord(0, 0, 0, b""), 0.0)
    flush = asyncio.create_task(host._flush(KEPT, "age"))
    assert await asyncio.to_thread(begun.wait, 10)
    # It lets go in time, though the flush is still at work.
    await host.reader._listener.on_partitions_revoked({KEPT})
    shared_out.set()
    await flush
    assert not host.parts
