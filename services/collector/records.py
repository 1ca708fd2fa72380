"""Events as Kafka records: the topic, its key, the partition that the key means, the bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from rec.events.v1 import events_pb2
from services.contract import topics
from services.contract.join_wire import head_of
from services.contract.times import from_us, to_us

BARRIER_TOPICS = (topics.IMPRESSIONS, topics.ACTIONS)
_IMPRESSION = events_pb2.EventRecord.IMPRESSION_FIELD_NUMBER
_ACTION = events_pb2.EventRecord.ACTION_FIELD_NUMBER


class Record(NamedTuple):
    """One record to write."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes


def event_records(
    impressions: Iterable[events_pb2.Impression], actions: Iterable[events_pb2.Action]
) -> list[Record]:
    """Impressions, then actions, each with its event time cut to microseconds (in place)."""
    places: dict[str, tuple[int, bytes]] = {}
    shown = [_event_record(topics.IMPRESSIONS.name, _IMPRESSION, event, places) for event in impressions]
    return shown + [_event_record(topics.ACTIONS.name, _ACTION, event, places) for event in actions]


def item_records(items: Iterable[events_pb2.Item]) -> list[Record]:
    """Catalogue items, keyed by id."""
    return [
        _keyed(topics.CATALOG, topics.entity_key(item.item_id), item.SerializeToString()) for item in items
    ]


def barrier_records(barrier_id: str, occurred_at: Timestamp) -> list[Record]:
    """The barrier for every partition of impressions and actions."""
    barrier = events_pb2.Barrier(barrier_id=barrier_id, occurred_at=from_us(to_us(occurred_at)))
    value = events_pb2.EventRecord(barrier=barrier).SerializeToString()
    return [
        Record(topic.name, partition, None, value)
        for topic in BARRIER_TOPICS
        for partition in range(topic.partitions)
    ]


def heartbeat_value(writer: str, occurred_us: int) -> bytes:
    """The value of a heartbeat at an event time."""
    heartbeat = events_pb2.Heartbeat(writer=writer, occurred_at=from_us(occurred_us))
    return events_pb2.EventRecord(heartbeat=heartbeat).SerializeToString()


def newest_us(impressions: Iterable[events_pb2.Impression], actions: Iterable[events_pb2.Action]) -> int:
    """The largest event time of a non-empty batch."""
    shown = [to_us(impression.occurred_at) for impression in impressions]
    return max(shown + [to_us(action.occurred_at) for action in actions])


def record_time_us(value: bytes) -> int | None:
    """The event time of an EventRecord's bytes; None when they do not decode or carry none."""
    record = events_pb2.EventRecord()
    try:
        record.ParseFromString(value)
    except Exception:  # protobuf's DecodeError differs between its implementations
        return None
    kind = record.WhichOneof("record")
    if kind is None:
        return None
    event: Any = getattr(record, kind)
    return to_us(event.occurred_at)


def _event_record(
    topic: str,
    field: int,
    event: events_pb2.Impression | events_pb2.Action,
    places: dict[str, tuple[int, bytes]],
) -> Record:
    """``places``: partition and key of each request of the batch; the event topics are co-partitioned."""
    _truncate(event.occurred_at)
    request_id = event.request_id
    if request_id not in places:
        key = topics.request_key(request_id)
        places[request_id] = topics.partition_of(key, topics.EVENT_PARTITIONS), key
    # The bytes of EventRecord(<field>=event), which would copy the event before it serialises it.
    payload = event.SerializeToString()
    return Record(topic, *places[request_id], head_of(field, len(payload)) + payload)


def _keyed(topic: topics.Topic, key: bytes, value: bytes) -> Record:
    return Record(topic.name, topics.partition_of(key, topic.partitions), key, value)


def _truncate(stamp: Timestamp) -> None:
    if finer := stamp.nanos % 1000:
        stamp.nanos -= finer
