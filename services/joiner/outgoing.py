"""From a join's outputs to Kafka records: which topic, key, partition and headers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rec.events.v1 import events_pb2 as ev
from services.contract import topics
from services.contract.join_events import Source
from services.contract.join_output import DEAD, BarrierPassed, Output, Reason, Rejected
from services.contract.join_wire import joined_at, sample_record
from services.contract.times import set_us


@dataclass(frozen=True)
class Names:
    """The topics of one joiner."""

    inputs: Mapping[Source, str]
    samples: str
    late_events: str
    dead_letters: str


def named(inputs: Mapping[Source, topics.Topic], suffix: str = "") -> Names:
    """What it reads, and the loop's output topics with its suffix."""
    return Names(
        {source: topic.name for source, topic in inputs.items()},
        *(topics.suffixed(topic, suffix).name for topic in topics.JOINED),
    )


STREAM = named(
    {
        Source.SNAPSHOTS: topics.FEATURE_SNAPSHOTS,
        Source.IMPRESSIONS: topics.IMPRESSIONS,
        Source.ACTIONS: topics.ACTIONS,
    }
)


class Outgoing:
    """One record to send."""

    __slots__ = ("headers", "key", "partition", "topic", "value")

    def __init__(
        self,
        topic: str,
        value: bytes,
        key: bytes | None,
        partition: int,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        self.topic = topic
        self.value = value
        self.key = key
        self.partition = partition
        self.headers = headers


def outgoing(
    output: Output, partition: int, key: bytes | None, joined_us: int, names: Names = STREAM
) -> Outgoing:
    """The record of one output.

    ``partition`` is the task's, ``key`` that of the input record that caused it, ``joined_us`` wall time.
    """
    if isinstance(output, Rejected):
        return _rejected(output, partition, key, names)
    if isinstance(output, BarrierPassed):
        record = ev.SampleRecord()
        record.barrier.barrier_id = output.barrier_id
        set_us(record.barrier.occurred_at, output.occurred_us)
        return Outgoing(names.samples, record.SerializeToString(), None, partition)
    value = sample_record(output.data, joined_at(joined_us))
    return Outgoing(names.samples, value, topics.request_key(output.request_id), partition)


def _rejected(row: Rejected, partition: int, key: bytes | None, names: Names) -> Outgoing:
    headers = topics.rejection_headers(str(row.reason), names.inputs[row.source], partition, row.offset)
    headers += row.headers()
    dead = row.reason in DEAD
    key = key if row.reason is Reason.MALFORMED else topics.request_key(row.request_id)
    # Rows of one input partition stay together.
    partitions = (topics.DEAD_LETTERS if dead else topics.LATE_EVENTS).partitions
    topic = names.dead_letters if dead else names.late_events
    return Outgoing(topic, row.raw, key, partition % partitions, headers)
