"""How one way to build samples differs from another, as the host sees it. This one is ``stream``: not at all.

The rules are the contract's (join, join_label_first, join_lookup). A scheme says which inputs there are,
which of them to read now, in what order records go into the join, and what a sample still needs before it is
written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from services.contract import topics
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.join_events import Source
from services.contract.join_position import Position
from services.joiner.outgoing import Names, Outgoing, named
from services.joiner.settings import Settings
from services.runtime.kafka_consumer import ConsumerRecord, TopicPartition

Batch = tuple[Source, Sequence[ConsumerRecord]]


class Intake:
    """One partition's records on their way into its join: straight."""

    waiting = 0
    waiting_bytes = 0

    def order(self, task: Any, source: Source, records: Sequence[ConsumerRecord]) -> Iterator[Batch]:
        """What to join now that these have been read. The task moves between two batches."""
        yield source, records

    def watermarks(self, task: Any) -> dict[Source, int]:
        """How far each input is, for judging which is ahead of the others; empty: none is."""
        return {source: task.inputs[source].watermark_us for source in task.sources}


class Scheme:
    """One per process."""

    inputs: Mapping[Source, topics.Topic] = {
        Source.SNAPSHOTS: topics.FEATURE_SNAPSHOTS,
        Source.IMPRESSIONS: topics.IMPRESSIONS,
        Source.ACTIONS: topics.ACTIONS,
    }

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.names: Names = named(self.inputs, settings.output_suffix)

    def task(self, config: JoinConfig, positions: Mapping[Source, Position]) -> JoinTask:
        """The join of one partition at committed positions of its inputs."""
        return JoinTask.restore(config, positions)

    def intake(self) -> Intake:
        """For one partition, each time that it is opened."""
        return Intake()

    def reads(
        self, owned: set[TopicPartition], intakes: Mapping[int, Intake]
    ) -> Iterable[tuple[Sequence[TopicPartition], int]]:
        """What to read now: (partitions, at most so many records); no partitions = all. ``intakes``: those
        that are open."""
        return (((), self.settings.max_poll_records),)

    async def fill(self, task: Any, batch: Sequence[Outgoing]) -> None:
        """Completes records before their transaction, in place."""

    async def run(self) -> None:
        """Work beside the join; a guarded task."""

    async def close(self) -> None:
        """After the last transaction."""


def scheme_of(settings: Settings) -> Scheme:
    """The scheme that the settings name."""
    if settings.scheme == "label-first":
        # Imported here: the stream needs no Parquet.
        from services.joiner.label_first import LabelFirst

        return LabelFirst(settings)
    if settings.scheme == "lookup":
        from services.joiner.lookup import Lookup

        return Lookup(settings)
    return Scheme(settings)
