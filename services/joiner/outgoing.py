"""From a join's outputs to Kafka records: which topic, key, partition and headers. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from rec.events.v1 import events_pb2 as ev
from services.contract import topics
from services.contract.join_events import Source
from services.contract.join_output import BarrierPassed, Output, Reason, Rejected
from services.contract.join_wire import joined_at, sample_record
from services.contract.times import set_us

INPUTS = {
    topics.FEATURE_SNAPSHOTS.name: Source.SNAPSHOTS,
    topics.IMPRESSIONS.name: Source.IMPRESSIONS,
    topics.ACTIONS.name: Source.ACTIONS,
}
TOPIC_OF = {source: name for name, source in INPUTS.items()}


@dataclass(slots=True)
class Outgoing:
    """One record to send."""

    topic: str
    value: bytes
    key: bytes | None
    partition: int
    headers: list[tuple[str, bytes]] | None = None


def outgoing(output: Output, partition: int, key: bytes | None, joined_us: int) -> Outgoing:
    """The record of one output.

    ``partition`` is the task's, ``key`` that of the input record that caused it, ``joined_us`` wall time.
    """
    if isinstance(output, Rejected):
        return _rejected(output, partition, key)
    if isinstance(output, BarrierPassed):
        record = ev.SampleRecord()
        record.barrier.barrier_id = output.barrier_id
        set_us(record.barrier.occurred_at, output.occurred_us)
        return Outgoing(topics.SAMPLES.name, record.SerializeToString(), None, partition)
    value = sample_record(output.data, joined_at(joined_us))
    return Outgoing(topics.SAMPLES.name, value, topics.request_key(output.request_id), partition)


def _rejected(row: Rejected, partition: int, key: bytes | None) -> Outgoing:
    headers = topics.rejection_headers(str(row.reason), TOPIC_OF[row.source], partition, row.offset)
    headers += row.headers()
    topic = topics.DEAD_LETTERS if row.reason is Reason.MALFORMED else topics.LATE_EVENTS
    key = key if row.reason is Reason.MALFORMED else topics.request_key(row.request_id)
    # Rows of one input partition stay together.
    return Outgoing(topic.name, row.raw, key, partition % topic.partitions, headers)
