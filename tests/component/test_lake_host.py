"""Which partitions the lake's host has open while its group shares them out anew."""

from __future__ import annotations

from pathlib import Path

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
