"""The rules of both stages: repeats, rounds, what a round writes."""

from __future__ import annotations

import pytest

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK, EventRecord, FeatureEvent, FeatureEventBatch, Item
from services.contract import feature_events, redis_keys, times, topics
from services.contract.errors import MalformedRecord
from services.contract.feature_events import Marks
from services.contract.feature_fold import ItemState, UserState
from services.feature_pipeline.fold_batch import PartitionFold, Section, decode
from services.feature_pipeline.repartition import SeenEvents, Splitter
from services.feature_pipeline.write_script import NO_OFFSET, arguments

NOW = 1_760_000_000_000_000


def action(event_id: str, user: int = 1, item: int = 2, at_us: int = NOW) -> EventRecord:
    record = EventRecord()
    made = record.action
    made.event_id, made.user_id, made.item_id, made.kind = event_id, user, item, ACTION_KIND_CLICK
    times.set_us(made.occurred_at, at_us)
    return record


def splitter(topic: str = "actions", window: int = 100) -> Splitter:
    return Splitter(topic, 0, lambda _item: 3, window)


def test_a_repeat_writes_nothing_and_says_so() -> None:
    split = splitter()
    value = action("a").SerializeToString()
    assert len(split.split(0, value).writes) == 2
    again = split.split(1, value)
    assert (again.writes, again.repeat) == ([], True)


def test_what_was_remembered_is_a_repeat() -> None:
    split = splitter()
    split.remember(action("a").SerializeToString())
    split.remember(b"\xff\xff")
    assert split.split(5, action("a").SerializeToString()).repeat


def test_the_window_of_event_ids_is_bounded() -> None:
    seen = SeenEvents(2)
    assert [seen.add(name) for name in "abcab"] == [True] * 5
    assert not seen.add("b")


def test_a_barrier_goes_to_every_partition() -> None:
    record = EventRecord()
    record.barrier.barrier_id = "b"
    writes = splitter().split(4, record.SerializeToString()).writes
    assert [partition for partition, _ in writes] == list(range(topics.FEATURE_EVENTS.partitions))
    assert {part.barrier.barrier_id for _, part in writes} == {"b"}


def test_a_heartbeat_moves_the_clock_and_writes_nothing() -> None:
    record = EventRecord()
    times.set_us(record.heartbeat.occurred_at, NOW)
    split = splitter().split(0, record.SerializeToString())
    assert (split.writes, split.event_us, split.repeat) == ([], NOW, False)


def test_the_catalogue_is_listed() -> None:
    item = Item(item_id=9, category=4)
    ((partition, part),) = splitter("catalog").split(0, item.SerializeToString()).writes
    assert partition == topics.partition_of(topics.entity_key(9), topics.FEATURE_EVENTS.partitions)
    assert part.item_listed.category == 4


def test_all_parts_of_an_entity_go_to_one_partition() -> None:
    split, places = splitter(), {}
    for offset in range(50):
        value = action(f"e{offset}", user=offset % 5, item=100 + offset % 7).SerializeToString()
        for partition, part in split.split(offset, value).writes:
            entity = feature_events.entity_of(part)
            assert places.setdefault(entity, partition) == partition
    assert len(set(places.values())) > 1


def test_a_bad_part_does_not_take_the_good_ones_with_it() -> None:
    good, bare = parts(action("a"))[0], FeatureEvent(event_id="x")
    kept, error = decode(FeatureEventBatch(events=[good, bare]).SerializeToString())
    assert kept == [good]
    assert error is not None and "1 of 2" in str(error)
    assert decode(FeatureEventBatch(events=[good]).SerializeToString()) == ([good], None)


@pytest.mark.parametrize("value", [None, b"", b"\xff\xff"])
def test_a_record_without_parts_is_malformed(value: bytes | None) -> None:
    kept, error = decode(value)
    assert kept == [] and error is not None


def nameless() -> bytes:
    return action("").SerializeToString()


def timeless() -> bytes:
    return action("a", at_us=0).SerializeToString()


def snapshot() -> bytes:
    record = EventRecord()
    record.snapshot.event_id = "s"
    return record.SerializeToString()


@pytest.mark.parametrize("value", [None, b"", b"\xff\xff", nameless(), timeless(), snapshot()])
def test_a_record_that_cannot_be_used_is_malformed(value: bytes | None) -> None:
    with pytest.raises(MalformedRecord):
        splitter().split(0, value)


@pytest.mark.parametrize("value", [None, b"\xff\xff", Item(category=4).SerializeToString()])
def test_an_item_that_cannot_be_used_is_malformed(value: bytes | None) -> None:
    with pytest.raises(MalformedRecord):
        splitter("catalog").split(0, value)


def parts(*records: EventRecord) -> list[FeatureEvent]:
    return [
        part
        for offset, record in enumerate(records)
        for _, part in feature_events.split(record, "actions", 0, offset, lambda _item: 3)
    ]


def fold_all(fold: PartitionFold, events: list[FeatureEvent], next_offset: int) -> Section:
    fresh = fold.take(events)
    for key in fold.missing(fresh):
        fold.put(key, None)
    return fold.fold(fresh, next_offset)


def test_a_round_writes_each_touched_entity_once_with_marks_and_totals() -> None:
    fold = PartitionFold(1, 10, Marks(), 100)
    section = fold_all(fold, parts(action("a"), action("b"), action("c", item=5)), 16)
    assert set(section.states) == {
        redis_keys.user_key(1),
        redis_keys.item_key(2),
        redis_keys.item_key(5),
    }
    assert ItemState.unpack(section.states[redis_keys.item_key(2)]).clicks == 2
    assert UserState.unpack(section.states[redis_keys.user_key(1)]).clicks == 3
    assert (section.from_offset, section.to_offset, fold.offset) == (10, 16, 16)
    assert (section.impressions, section.clicks, section.events) == (0, 3, 6)
    assert section.marks == [("actions/0", 2 * 1024 + 1)]
    hop = redis_keys.popular_key(redis_keys.popular_hop(NOW))
    assert section.popular == {(hop, (2).to_bytes(8, "little")): 2, (hop, (5).to_bytes(8, "little")): 1}


def test_a_repeated_round_changes_nothing() -> None:
    events = parts(action("a"), action("b"))
    first = PartitionFold(0, 0, Marks(), 100)
    fold_all(first, events, 4)
    again = fold_all(PartitionFold(0, 4, Marks(fold_marks(first)), 100), events, 8)
    assert (again.states, again.clicks, again.popular, again.events) == ({}, 0, {}, 0)
    assert again.to_offset == 8


def fold_marks(fold: PartitionFold) -> list[tuple[str, int]]:
    return fold.fold([], fold.offset).marks


def test_co_clicks_pair_a_click_with_the_users_last_five_other_items_both_ways() -> None:
    fold = PartitionFold(0, 0, Marks(), 100)
    clicks = [action(f"e{i}", item=10 + i, at_us=NOW + i) for i in range(7)] + [
        action("again", item=16, at_us=NOW + 9)
    ]
    fold_all(fold, parts(*clicks[:6]), 1)
    section = fold_all(fold, parts(*clicks)[12:], 2)

    def pair(one: int, other: int) -> tuple[bytes, bytes]:
        return redis_keys.co_click_key(one), other.to_bytes(8, "little")

    assert section.co_clicks[pair(16, 15)] == 2
    assert section.co_clicks[pair(15, 16)] == 2
    assert section.co_clicks[pair(16, 11)] == 1
    assert pair(16, 10) not in section.co_clicks
    assert pair(16, 16) not in section.co_clicks


def test_states_go_on_from_what_redis_holds_and_unreadable_ones_begin_anew() -> None:
    stored = ItemState(7, NOW)
    stored.clicked(NOW)
    fold = PartitionFold(0, 0, Marks(), 100)
    fresh = fold.take(parts(action("a")))
    user_key, item_key = fold.missing(fresh)
    assert not fold.put(user_key, b"\x09 another version")
    assert fold.put(item_key, stored.pack())
    section = fold.fold(fresh, 2)
    assert ItemState.unpack(section.states[item_key]).clicks == 2
    assert UserState.unpack(section.states[user_key]).clicks == 1


def test_the_cache_forgets_what_was_unused_for_longest() -> None:
    fold = PartitionFold(0, 0, Marks(), 2)
    fold_all(fold, parts(action("a", item=5)), 1)
    fold_all(fold, parts(action("a"), action("b", item=6))[2:], 2)
    fold.trim()
    wanted = fold.take(parts(action("a"), action("b"), action("c", item=5), action("d", item=6))[4:])
    assert fold.missing(wanted) == [redis_keys.item_key(5)]


def test_barriers_are_named_with_the_partition_that_passed_them_and_the_origin() -> None:
    record = EventRecord()
    record.barrier.barrier_id = "b"
    event = feature_events.barrier_part(record.barrier, "impressions", 2, 7)
    section = fold_all(PartitionFold(3, 0, Marks(), 10), [event, event], 2)
    assert section.barriers == [("b", "3:impressions/2")]


def test_the_first_write_of_a_partition_expects_no_offset() -> None:
    section = Section(2, -1, 9)
    flat = arguments([(b"token", section)], 32, 1)
    assert flat[9] == len(flat) - 10
    assert flat[10:15] == [b"p:owner:2", b"token", b"p:mark:2", NO_OFFSET, 9]
