"""What the collector does quickly for good events is what the long way says: checks, bytes, partitions."""

from __future__ import annotations

from unittest.mock import patch

from aiokafka.partitioner import murmur2 as murmur2_of_the_client
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from rec.events.v1 import events_pb2
from services.collector import validation
from services.collector.records import event_records
from services.collector.time_bounds import TimeBounds
from services.contract import topics
from services.contract.errors import InvalidInput

BOUNDS = TimeBounds(1_000_000, 5_000_000)
SECONDS = st.sampled_from([-1, 0, 1, 3, 5, 6, 253_402_300_799, 253_402_300_800])
NANOS = st.sampled_from([-1, 0, 999, 1_000, 1_001, 123_456_789, 999_999_999, 1_000_000_000])
STAMPS = st.none() | st.builds(Timestamp, seconds=SECONDS, nanos=NANOS)
DWELLS = st.none() | st.builds(Duration, seconds=st.sampled_from([-1, 0, 7]), nanos=NANOS)
IDS = st.sampled_from([0, 1, 2, 3, 2**64 - 1])


def texts(longest: int) -> st.SearchStrategy[str]:
    return st.sampled_from(["", "r", "é", "x" * longest, "é" * longest, "x" * (longest + 1)])


COMMON = {"event_id": texts(128), "request_id": texts(64), "user_id": IDS, "occurred_at": STAMPS}
ITEMS = st.lists(IDS, max_size=5) | st.sampled_from([range(1, 501), range(1, 502)])
POSITIONS = st.lists(st.sampled_from([0, 1, 999, 1_000]), max_size=5)
IMPRESSIONS = st.builds(events_pb2.Impression, item_ids=ITEMS, positions=POSITIONS, **COMMON)
ACTIONS = st.builds(
    events_pb2.Action, item_id=IDS, kind=st.sampled_from([0, 1, 4, 5, 77]), dwell=DWELLS, **COMMON
)
# Events in which most is right, so that what is wrong stands alone.
GOOD = {
    "event_id": st.just("r:1") | texts(128),
    "request_id": st.just("r") | texts(64),
    "user_id": st.just(7) | IDS,
    "occurred_at": st.just(Timestamp(seconds=3, nanos=5_001)) | STAMPS,
}
NEARLY_GOOD_IMPRESSIONS = st.builds(
    events_pb2.Impression,
    item_ids=st.just([1, 2, 3]) | ITEMS,
    positions=st.just([2, 1, 0]) | POSITIONS,
    **GOOD,
)
NEARLY_GOOD_ACTIONS = st.builds(
    events_pb2.Action,
    item_id=st.just(1) | IDS,
    kind=st.just(1) | st.sampled_from([0, 4, 5]),
    dwell=DWELLS,
    **GOOD,
)


def found(shown: list[events_pb2.Impression], acted: list[events_pb2.Action]) -> list[str]:
    try:
        validation.check_events(shown, acted, BOUNDS, "requests[0].")
    except InvalidInput as error:
        return [str(one) for one in error.violations]
    return []


def found_the_long_way(shown: list[events_pb2.Impression], acted: list[events_pb2.Action]) -> list[str]:
    with (
        patch.object(validation, "good_impression", lambda *_: False),
        patch.object(validation, "good_action", lambda *_: False),
    ):
        return found(shown, acted)


@given(IMPRESSIONS | NEARLY_GOOD_IMPRESSIONS)
def test_an_impression_is_good_when_and_only_when_the_long_way_finds_nothing(
    impression: events_pb2.Impression,
) -> None:
    assert validation.good_impression(impression, BOUNDS) == (not found_the_long_way([impression], []))


@given(ACTIONS | NEARLY_GOOD_ACTIONS)
def test_an_action_is_good_when_and_only_when_the_long_way_finds_nothing(action: events_pb2.Action) -> None:
    assert validation.good_action(action, BOUNDS) == (not found_the_long_way([], [action]))


def test_the_first_second_of_1970_is_left_to_the_long_way() -> None:
    early = events_pb2.Action(
        event_id="e", request_id="r", user_id=1, item_id=1, kind=1, occurred_at=Timestamp(nanos=1_000)
    )
    assert not validation.good_action(early, TimeBounds(0, 9))
    validation.check_events([], [early], TimeBounds(0, 9))


@given(
    st.lists(IMPRESSIONS | NEARLY_GOOD_IMPRESSIONS, max_size=3),
    st.lists(ACTIONS | NEARLY_GOOD_ACTIONS, max_size=3),
)
def test_a_batch_has_the_violations_of_the_long_way_in_its_order(
    shown: list[events_pb2.Impression], acted: list[events_pb2.Action]
) -> None:
    assert found(shown, acted) == found_the_long_way(shown, acted)


@given(
    st.lists(NEARLY_GOOD_IMPRESSIONS, max_size=3),
    st.lists(NEARLY_GOOD_ACTIONS, max_size=3),
)
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


@given(st.binary(max_size=300))
def test_murmur2_is_the_clients(key: bytes) -> None:
    assert topics.murmur2(key) == murmur2_of_the_client(key) & 0x7FFFFFFF
