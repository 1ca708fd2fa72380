"""Splitting events into parts, and taking each part once."""

from __future__ import annotations

import random

import pytest

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK, Barrier, EventRecord, FeatureEvent, Item
from services.contract import feature_events, times, topics
from services.contract.errors import MalformedRecord
from services.contract.feature_events import Marks


def impression(items: list[int]) -> EventRecord:
    record = EventRecord()
    shown = record.impression
    shown.event_id, shown.user_id = "q1:shown", 7
    shown.item_ids.extend(items)
    times.set_us(shown.occurred_at, 123_456)
    return record


def category_of(item: int) -> int:
    return item + 1


def test_an_impression_becomes_one_user_part_and_one_part_per_item() -> None:
    parts = feature_events.split(impression([4, 5]), "impressions", 2, 9, category_of)
    assert [key for key, _ in parts] == [topics.entity_key(entity) for entity in (7, 4, 5)]
    assert [part.origin_sequence for _, part in parts] == [9216, 9217, 9218]
    assert {(part.origin_topic, part.origin_partition) for _, part in parts} == {("impressions", 2)}
    assert list(parts[0][1].user_shown.categories) == [5, 6]
    assert [feature_events.entity_of(part) for _, part in parts] == [7, 4, 5]
    assert [feature_events.is_user_part(part) for _, part in parts] == [True, False, False]
    assert all(times.to_us(part.occurred_at) == 123_456 for _, part in parts)


def test_an_action_becomes_a_user_part_and_an_item_part() -> None:
    record = EventRecord()
    action = record.action
    action.event_id, action.user_id, action.item_id, action.kind = "a", 7, 4, ACTION_KIND_CLICK
    (user_key, user), (item_key, item) = feature_events.split(record, "actions", 0, 1, category_of)
    assert (user_key, item_key) == (topics.entity_key(7), topics.entity_key(4))
    assert (user.user_acted.category, user.user_acted.item_id) == (5, 4)
    assert (item.item_acted.kind, item.origin_sequence) == (ACTION_KIND_CLICK, 1025)


@pytest.mark.parametrize("kind", ["snapshot", "heartbeat", "barrier"])
def test_what_touches_no_entity_has_no_parts(kind: str) -> None:
    record = EventRecord()
    getattr(record, kind).SetInParent()
    assert feature_events.split(record, "impressions", 0, 0, category_of) == []


def test_an_impression_fits_into_its_sequence_numbers_or_is_refused() -> None:
    assert feature_events.MAX_IMPRESSION_ITEMS + 1 < feature_events.PARTS_PER_RECORD
    most = impression(list(range(500)))
    parts = feature_events.split(most, "impressions", 0, 0, category_of)
    assert parts[-1][1].origin_sequence < feature_events.PARTS_PER_RECORD
    with pytest.raises(MalformedRecord):
        feature_events.split(impression(list(range(501))), "impressions", 0, 0, category_of)


def test_an_item_without_a_birth_stays_without() -> None:
    key, part = feature_events.listed_part(Item(item_id=3, category=2), 0, 8)
    assert key == topics.entity_key(3)
    assert times.to_us(part.item_listed.created_at) == 0
    assert (part.item_listed.category, part.origin_sequence) == (2, 8192)


def test_barriers_come_from_every_partition_of_both_topics() -> None:
    assert len(feature_events.BARRIER_ORIGINS) == 8
    part = feature_events.barrier_part(Barrier(barrier_id="b"), "actions", 3, 5)
    assert (part.barrier.barrier_id, Marks.field(part), part.origin_sequence) == ("b", "actions/3", 5120)
    with pytest.raises(MalformedRecord):
        feature_events.entity_of(part)


def test_a_writer_that_starts_again_anywhere_leaves_each_part_once() -> None:
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
                FeatureEvent(origin_topic="t", origin_sequence=n) for n in range(start, max(stop, written))
            ]
            committed = rng.randint(committed, written)
        marks = Marks()
        taken = []
        for event in log:
            if marks.take(event):
                taken.append(event.origin_sequence)
            if rng.random() < 0.1:
                marks = Marks(marks.items())
        assert taken == list(range(30))


def test_marks_of_different_origins_are_independent() -> None:
    marks = Marks([("a/0", 5)])
    assert not marks.take(FeatureEvent(origin_topic="a", origin_sequence=5))
    assert marks.take(FeatureEvent(origin_topic="a", origin_partition=1, origin_sequence=0))
    assert marks.take(FeatureEvent(origin_topic="a", origin_sequence=6))
    assert dict(marks.items()) == {"a/0": 6, "a/1": 0}
