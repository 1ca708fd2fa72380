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


class Group:
    """A reader of empty partitions, as aiokafka's is: between revoked and assigned it names the old ones."""

    def __init__(self, *owned: TopicPartition) -> None:
        self.owned = set(owned)

    def assigned(self) -> set[TopicPartition]:
        return self.owned

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    end_offsets = beginning_offsets

    def seek(self, where: TopicPartition, offset: int) -> None:
        assert where in self.owned and offset == 0


async def test_a_partition_opened_while_the_group_shares_out_is_not_kept_when_somebody_else_gets_it(
    tmp_path: Path,
) -> None:
    host = LakeHost(Settings(lake_uri=str(tmp_path)), LakeStore(str(tmp_path)))
    group = host.reader = Group(KEPT, LOST)
    await host._on_assigned({KEPT, LOST})
    await host._open_new()
    assert host.ready and set(host.parts) == {KEPT, LOST}

    await host._on_revoked({KEPT, LOST})
    # The host's own task goes on meanwhile, and opens what the client still names.
    await host._open_new()
    group.owned = {KEPT}
    await host._on_assigned({KEPT})
    await host._open_new()
    assert set(host.parts) == {KEPT}
    assert host.ready, "or it would never serve again"


async def test_a_flush_that_is_refused_after_the_group_has_shared_out_anew_ends_nothing(
    tmp_path: Path,
) -> None:
    host = LakeHost(Settings(lake_uri=str(tmp_path)), LakeStore(str(tmp_path)))
    host.reader = Group(KEPT)
    await host._on_assigned({KEPT})
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
    await host._on_assigned({KEPT})
    shared_out.set()
    await flush
    assert not host.parts
