"""What a record says to each partition of feature-events, and the view events in it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK, Barrier, EventRecord, FeatureEvent, Item
from services.contract import feature_events, times, topics
from services.contract.errors import InvalidInput, MalformedRecord
from services.contract.feature_sets import feature_set
from services.contract.view_events import Event, event_hash
from services.contract.view_fold import OriginMarks

AT_US = 1_760_000_000_123_456


def impression(items: list[int], positions: list[int] | None = None) -> EventRecord:
    record = EventRecord()
    shown = record.impression
    shown.event_id, shown.user_id = "q1:shown", 7
    shown.item_ids.extend(items)
    shown.positions.extend(positions or [])
    times.set_us(shown.occurred_at, AT_US)
    return record


def click() -> EventRecord:
    record = EventRecord()
    action = record.action
    action.event_id, action.user_id, action.item_id, action.kind = "a", 7, 4, ACTION_KIND_CLICK
    action.dwell.FromMicroseconds(2_500_001)
    times.set_us(action.occurred_at, AT_US)
    return record


def category_of(item: int) -> int:
    return item + 1


def split(record: EventRecord, topic: str = "impressions", offset: int = 9) -> dict[int, list[Event]]:
    writes = feature_events.split(record, topic, 2, offset, category_of)
    assert [partition for partition, _ in writes] == sorted({partition for partition, _ in writes})
    return {partition: feature_events.view_events(event) for partition, event in writes}


def owner(entity: int) -> int:
    return feature_events.owner(topics.entity_key(entity))


def test_an_impression_goes_whole_to_its_user_and_by_item_to_the_others() -> None:
    items = list(range(20, 40))
    found = split(impression(items))
    assert len(found) == topics.FEATURE_EVENTS.partitions
    wanted = [
        Event(
            "shown",
            AT_US,
            event_hash("q1:shown") ^ item,
            {"user_id": 7, "item_id": item, "category": item + 1, "position": index},
            "impressions/2",
            9 * 1024 + 1 + index,
        )
        for index, item in enumerate(items)
    ]
    for partition, events in found.items():
        here = [event for event in wanted if partition in (owner(7), owner(event.fields["item_id"]))]
        assert events == here


def test_given_positions_are_those_of_the_items() -> None:
    events = split(impression([4, 5], [8, 2]))[owner(7)]
    assert [(event.fields["position"], event.sequence) for event in events] == [(8, 9217), (2, 9218)]
    with pytest.raises(MalformedRecord, match="positions=1"):
        split(impression([4, 5], [8]))


def test_an_action_goes_once_to_its_user_and_its_item() -> None:
    fields = {"user_id": 7, "item_id": 4, "category": 5, "action": ACTION_KIND_CLICK, "dwell_s": 2_500_001}
    wanted = Event("acted", AT_US, event_hash("a"), fields, "actions/2", 9 * 1024)
    assert split(click(), "actions") == {partition: [wanted] for partition in {owner(7), owner(4)}}


@pytest.mark.parametrize("kind", ["snapshot", "heartbeat", "barrier"])
def test_what_touches_no_entity_says_nothing(kind: str) -> None:
    record = EventRecord()
    getattr(record, kind).SetInParent()
    assert feature_events.split(record, "impressions", 0, 0, category_of) == []


def test_an_impression_fits_into_its_sequence_numbers_or_is_refused() -> None:
    assert feature_events.MAX_IMPRESSION_ITEMS + 1 < feature_events.PARTS_PER_RECORD
    events = split(impression(list(range(500))), offset=0)[owner(7)]
    assert events[-1].sequence < feature_events.PARTS_PER_RECORD
    with pytest.raises(MalformedRecord, match="item_ids=501"):
        split(impression(list(range(501))))


def test_a_listing_holds_for_all_time_and_is_told_apart_by_its_place_in_the_log() -> None:
    item = Item(item_id=3, category=2, created_at=times.from_us(AT_US))
    partition, message = feature_events.listed(item, 0, 8)
    (event,) = feature_events.view_events(message)
    fields = {"item_id": 3, "category": 2, "created_at": AT_US}
    assert (partition, event) == (owner(3), Event("listed", 0, 8192, fields, "catalog/0", 8192))
    bare = feature_events.listed(Item(item_id=3, category=2), 0, 8)[1]
    assert feature_events.view_events(bare)[0].fields["created_at"] == 0


def test_barriers_come_from_every_partition_of_both_topics() -> None:
    assert len(feature_events.BARRIER_ORIGINS) == 8
    event = feature_events.barrier_event(Barrier(barrier_id="b"), "actions", 3, 5)
    found = event.barrier.barrier_id, feature_events.origin(event), event.origin_offset
    assert found == ("b", "actions/3", 5)
    assert feature_events.view_events(event) == [] and feature_events.size_of(event) == 1


def test_columns_of_unequal_length_and_numbers_beyond_a_sum_are_malformed() -> None:
    event = feature_events.split(impression([4, 5]), "impressions", 0, 0, category_of)[0][1]
    del event.shown.places[-1]
    with pytest.raises(MalformedRecord, match=r"shown=.*columns of equal length"):
        feature_events.view_events(event)
    long = click()
    long.action.dwell.seconds = 1 << 30
    with pytest.raises(MalformedRecord, match="dwell_s"):
        feature_events.view_events(feature_events.split(long, "actions", 0, 0, category_of)[0][1])


def test_every_view_in_use_is_of_a_user_or_an_item_and_another_is_refused() -> None:
    for name in ("world", "movielens"):
        for view in feature_set(name).views:
            feature_events.check_routed(view)
    of_user = feature_set("world").views[-1]
    for key in ((), ("category", "user_id")):
        with pytest.raises(InvalidInput, match=r"user_category\.key=.*beginning with user_id or item_id"):
            feature_events.check_routed(replace(of_user, key=key))


def test_a_writer_that_starts_again_anywhere_leaves_each_event_once() -> None:
    """Writers re-read from below what they have written; the fold restarts from stored marks."""
    rng = random.Random(1)
    for _ in range(200):
        log: list[FeatureEvent] = []
        written = committed = 0
        while written < 30:
            start = rng.randint(max(0, committed - 3), committed)
            written = max(written, rng.randint(start, 30))
            stop = rng.randint(start, written)
            log += [
                feature_events.listed(Item(item_id=1), 0, offset)[1]
                for offset in range(start, max(stop, written))
            ]
            committed = rng.randint(committed, written)
        marks = OriginMarks()
        taken = []
        for message in log:
            (event,) = feature_events.view_events(message)
            if marks.take(event.origin, event.sequence):
                taken.append(event.sequence // 1024)
            if rng.random() < 0.1:
                marks = OriginMarks(marks.stored())
        assert taken == list(range(30))


def test_marks_of_different_origins_are_independent() -> None:
    marks = OriginMarks({"a/0": 5})
    assert not marks.take("a/0", 5)
    assert marks.take("a/1", 0)
    assert marks.take("a/0", 6)
    assert marks.stored() == {"a/0": 6, "a/1": 0}
