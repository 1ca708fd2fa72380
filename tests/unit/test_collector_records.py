"""Records are made without protobuf's own way round: the same bytes, the same partitions."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2 as murmur2_of_the_client
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from rec.events.v1 import events_pb2
from services.collector.records import event_records
from services.contract import topics

SECONDS = st.sampled_from([-1, 0, 1, 3, 253_402_300_799, 253_402_300_800])
NANOS = st.sampled_from([-1, 0, 999, 1_000, 1_001, 123_456_789, 999_999_999, 1_000_000_000])
IDS = st.sampled_from([0, 1, 2, 3, 2**64 - 1])
COMMON = {
    "event_id": st.sampled_from(["", "r:1", "é", "x" * 128]),
    "request_id": st.sampled_from(["", "r", "é", "x" * 64]),
    "user_id": IDS,
    "occurred_at": st.none() | st.builds(Timestamp, seconds=SECONDS, nanos=NANOS),
}
IMPRESSIONS = st.builds(
    events_pb2.Impression,
    item_ids=st.lists(IDS, max_size=5) | st.just(range(1, 501)),
    positions=st.lists(st.sampled_from([0, 1, 999]), max_size=5),
    **COMMON,
)
ACTIONS = st.builds(
    events_pb2.Action,
    item_id=IDS,
    kind=st.sampled_from([0, 1, 4, 5, 77]),
    dwell=st.none() | st.builds(Duration, seconds=st.sampled_from([-1, 0, 7]), nanos=NANOS),
    **COMMON,
)


@given(st.lists(IMPRESSIONS, max_size=3), st.lists(ACTIONS, max_size=3))
def test_a_record_has_the_bytes_that_protobuf_gives_it_and_the_partition_of_its_key(
    shown: list[events_pb2.Impression], acted: list[events_pb2.Action]
) -> None:
    written = event_records(shown, acted)  # cuts times in place
    expected = [
        *(("impressions", one.request_id, events_pb2.EventRecord(impression=one)) for one in shown),
        *(("actions", one.request_id, events_pb2.EventRecord(action=one)) for one in acted),
    ]
    assert [(record.topic, record.key, record.value) for record in written] == [
        (topic, request_id.encode(), record.SerializeToString()) for topic, request_id, record in expected
    ]
    for record in written:
        assert record.partition == topics.partition_of(record.key or b"", topics.EVENT_PARTITIONS)
    assert all(one.occurred_at.nanos % 1_000 == 0 for one in [*shown, *acted])


def test_the_event_topics_share_their_partitions() -> None:
    assert topics.IMPRESSIONS.partitions == topics.ACTIONS.partitions == topics.EVENT_PARTITIONS


def test_a_deployment_chooses_the_partitions_of_event_topics() -> None:
    assert topics.event_partitions({}) == 4
    assert topics.event_partitions({"RECLOOP_EVENT_PARTITIONS": "12"}) == 12
    for bad in ("", "0", "257", "-1", "4_0", "four", "\u0664"):
        with pytest.raises(SystemExit, match=f"^RECLOOP_EVENT_PARTITIONS={bad}: allowed: 1 to 256$"):
            topics.event_partitions({"RECLOOP_EVENT_PARTITIONS": bad})


@given(st.binary(max_size=300))
def test_murmur2_is_the_clients(key: bytes) -> None:
    assert topics.murmur2(key) == murmur2_of_the_client(key) & 0x7FFFFFFF
