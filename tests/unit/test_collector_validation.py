"""What the collector refuses, by name and place."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rec.events.v1 import events_pb2
from services.collector.records import barrier_records, event_records, item_records, newest_us, record_time_us
from services.collector.settings import EventTimeSettings
from services.collector.time_bounds import TimeBounds, time_bounds
from services.collector.validation import check_barrier, check_events, check_items
from services.contract import topics
from services.contract.errors import InvalidInput
from services.contract.ids import hash_key
from services.contract.times import from_us

NOW_US = 900_000_000_000_000
BOUNDS = TimeBounds(NOW_US - 1_000_000, NOW_US + 1_000_000)
DAY_US = 86_400_000_000


def impression(**changes: object) -> events_pb2.Impression:
    fields = {
        "event_id": "r:shown",
        "request_id": "r",
        "user_id": 7,
        "item_ids": [1, 2, 3],
        "occurred_at": from_us(NOW_US),
        **changes,
    }
    return events_pb2.Impression(**fields)


def action(**changes: object) -> events_pb2.Action:
    fields = {
        "event_id": "r:1:1",
        "request_id": "r",
        "user_id": 7,
        "item_id": 1,
        "kind": events_pb2.ACTION_KIND_CLICK,
        "occurred_at": from_us(NOW_US),
        **changes,
    }
    return events_pb2.Action(**fields)


def fields_of(check: Callable[[], None]) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        check()
    return [violation.field for violation in caught.value.violations]


def test_good_events_pass() -> None:
    check_events([impression(), impression(positions=[4, 0, 999])], [action()], BOUNDS)
    check_events([impression(item_ids=range(1, 501))], [], BOUNDS)
    check_events([impression(request_id="é" * 64, event_id="x" * 128)], [], BOUNDS)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"event_id": ""}, "event_id"),
        ({"event_id": "x" * 129}, "event_id"),
        ({"request_id": ""}, "request_id"),
        ({"request_id": "x" * 65}, "request_id"),
        ({"user_id": 0}, "user_id"),
        ({"item_ids": []}, "item_ids"),
        ({"item_ids": [1, 2, 1]}, "item_ids"),
        ({"item_ids": [1, 0]}, "item_ids"),
        ({"item_ids": range(1, 502)}, "item_ids"),
        ({"positions": [1, 2]}, "positions"),
        ({"positions": [1, 2, 1000]}, "positions"),
        ({"occurred_at": None}, "occurred_at"),
        ({"occurred_at": from_us(NOW_US + 1_000_001)}, "occurred_at"),
        ({"occurred_at": from_us(NOW_US - 1_000_001)}, "occurred_at"),
        ({"occurred_at": from_us(-1)}, "occurred_at"),
    ],
)
def test_a_bad_impression_is_named(changes: dict, field: str) -> None:
    assert fields_of(lambda: check_events([impression(), impression(**changes)], [], BOUNDS)) == [
        f"impressions[1].{field}"
    ]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"item_id": 0}, "item_id"),
        ({"kind": 0}, "kind"),
        ({"kind": 77}, "kind"),
        ({"dwell": {"seconds": -1}}, "dwell"),
        ({"user_id": 0}, "user_id"),
        ({"occurred_at": None}, "occurred_at"),
    ],
)
def test_a_bad_action_is_named(changes: dict, field: str) -> None:
    assert fields_of(lambda: check_events([], [action(**changes)], BOUNDS, "requests[2].")) == [
        f"requests[2].actions[0].{field}"
    ]


def test_nanoseconds_outside_a_second_are_refused() -> None:
    bad = impression()
    bad.occurred_at.nanos = 1_000_000_000
    assert fields_of(lambda: check_events([bad], [], BOUNDS)) == ["impressions[0].occurred_at"]


def test_all_violations_of_a_batch_come_at_once() -> None:
    bad = [impression(user_id=0, item_ids=[]), impression(event_id="")]
    assert fields_of(lambda: check_events(bad, [action(kind=0)], BOUNDS)) == [
        "impressions[0].user_id",
        "impressions[0].item_ids",
        "impressions[1].event_id",
        "actions[0].kind",
    ]


@pytest.mark.parametrize("count", [0, 1001])
def test_empty_and_oversized_batches_are_refused(count: int) -> None:
    assert fields_of(lambda: check_events([], [action()] * count, BOUNDS)) == ["events"]
    assert fields_of(lambda: check_items([events_pb2.Item(item_id=1)] * count)) == ["items"]


def test_items_are_checked() -> None:
    check_items(
        [events_pb2.Item(item_id=hash_key("a"), item_key="a", category=63), events_pb2.Item(item_id=5)]
    )
    bad = [
        events_pb2.Item(item_id=0),
        events_pb2.Item(item_id=9, item_key="a"),
        events_pb2.Item(item_id=9, category=64, created_at=from_us(-5)),
    ]
    assert fields_of(lambda: check_items(bad)) == [
        "items[0].item_id",
        "items[1].item_key",
        "items[2].item_id",
        "items[2].category",
        "items[2].created_at",
    ]


def test_a_barrier_may_lie_in_the_past_but_not_in_the_future() -> None:
    check_barrier("b", True, from_us(1), BOUNDS)
    assert fields_of(lambda: check_barrier("", False, from_us(0), BOUNDS)) == ["barrier_id", "occurred_at"]
    late = from_us(BOUNDS.latest_us + 1)
    assert fields_of(lambda: check_barrier("b" * 65, True, late, BOUNDS)) == ["barrier_id", "occurred_at"]


def test_before_the_first_event_any_past_is_believed_and_no_far_future() -> None:
    settings = EventTimeSettings()
    assert time_bounds(settings, 1.0, None, NOW_US) == TimeBounds(0, NOW_US + 60_000_000)
    assert time_bounds(settings, 0.0, None, NOW_US) == TimeBounds(0, NOW_US + 400 * DAY_US)


def test_after_it_the_run_clock_decides_and_not_the_wall() -> None:
    settings = EventTimeSettings()
    in_1997 = 870_000_000_000_000
    live = time_bounds(settings, 1.0, in_1997, NOW_US)
    assert live == TimeBounds(in_1997 - DAY_US, in_1997 + 60_000_000)
    for scale in (0.0, 1440.0):
        assert time_bounds(settings, scale, in_1997, NOW_US).latest_us == in_1997 + 400 * DAY_US


def test_records_carry_microseconds_and_the_contracts_key_and_partition() -> None:
    shown = impression()
    shown.occurred_at.nanos = 123_456_789
    (record, acted) = event_records([shown], [action()])
    decoded = events_pb2.EventRecord.FromString(record.value)
    assert decoded.impression.occurred_at.nanos == 123_456_000
    assert (record.topic, record.key) == ("impressions", b"r")
    assert record.partition == topics.partition_of(b"r", topics.IMPRESSIONS.partitions)
    assert (acted.topic, acted.partition) == ("actions", record.partition), "co-partitioned"
    (item,) = item_records([events_pb2.Item(item_id=258)])
    assert (item.topic, item.key) == ("catalog", (258).to_bytes(8, "little"))


def test_a_barrier_goes_to_every_partition_of_both_topics() -> None:
    written = barrier_records("b", from_us(NOW_US))
    assert [(record.topic, record.partition) for record in written] == [
        (topic, partition) for topic in ("impressions", "actions") for partition in range(4)
    ]


def test_event_times_are_read_back_from_bytes() -> None:
    (record,) = event_records([impression()], [])
    assert record_time_us(record.value) == NOW_US
    assert record_time_us(b"\xff\xff garbage") is None
    assert record_time_us(b"") is None
    assert newest_us([impression()], [action(occurred_at=from_us(NOW_US + 5))]) == NOW_US + 5
