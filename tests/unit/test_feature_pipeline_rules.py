"""The rules of both stages: repeats, rounds, what a round writes."""

from __future__ import annotations

import numpy as np
import pytest

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK, EventRecord, FeatureEvent, FeatureEventBatch, Item
from services.contract import feature_events, redis_keys, times, topics
from services.contract.errors import MalformedRecord
from services.contract.feature_sets import feature_set
from services.contract.feature_view import FeatureView
from services.contract.view_aggregates import Decayed, Feature
from services.contract.view_fold import OriginMarks
from services.contract.view_plan import plan_of
from services.contract.view_read import read, records_of
from services.contract.view_state import ViewState
from services.contract.view_ttl import ttl_s
from services.contract.views_world import MINUTE_US, SHOWN
from services.feature_pipeline.fold_batch import Message, PartitionFold, Section, decode
from services.feature_pipeline.repartition import Splitter
from services.feature_pipeline.split_worker import in_order_of_append
from services.feature_pipeline.write_script import NO_OFFSET, arguments
from services.runtime.kafka_consumer import ConsumerRecord, TopicPartition

VIEWS = {view.name: view for view in feature_set("world").views}
NOW = 1_760_000_000_000_000


def action(event_id: str, user: int = 1, item: int = 2, at_us: int = NOW) -> EventRecord:
    record = EventRecord()
    made = record.action
    made.event_id, made.user_id, made.item_id, made.kind = event_id, user, item, ACTION_KIND_CLICK
    times.set_us(made.occurred_at, at_us)
    return record


def splitter(topic: str = "actions") -> Splitter:
    return Splitter(topic, 0, lambda _item: 3)


def test_a_repeat_writes_nothing_and_says_so() -> None:
    split = splitter()
    value = action("a").SerializeToString()
    assert split.split(0, value).writes
    again = split.split(1, value)
    assert (again.writes, again.repeat) == ([], True)


def test_what_was_remembered_is_a_repeat() -> None:
    split = splitter()
    split.remember(3, action("a").SerializeToString())
    split.remember(4, b"\xff\xff")
    assert split.split(5, action("a").SerializeToString()).repeat


def test_partitions_are_split_side_by_side_each_in_its_own_order() -> None:
    a, b = TopicPartition("impressions", 0), TopicPartition("actions", 3)

    def records(where: TopicPartition, *stamps: int) -> list[ConsumerRecord]:
        return [
            ConsumerRecord(where.topic, where.partition, at, stamp, 0, None, b"", None, 0, 0, ())
            for at, stamp in enumerate(stamps)
        ]

    # A stamp may go back: the partition's order stays.
    found = in_order_of_append({a: records(a, 10, 30, 20, 50), b: records(b, 15, 40)})
    assert [(where, record.offset) for where, record in found] == [
        *((a, 0), (b, 0), (a, 1), (a, 2), (b, 1), (a, 3)),
    ]


def test_a_barrier_goes_to_every_partition() -> None:
    record = EventRecord()
    record.barrier.barrier_id = "b"
    writes = splitter().split(4, record.SerializeToString()).writes
    assert [partition for partition, _ in writes] == list(range(topics.FEATURE_EVENTS.partitions))
    assert {event.barrier.barrier_id for _, event in writes} == {"b"}


def test_a_heartbeat_moves_the_clock_and_writes_nothing() -> None:
    record = EventRecord()
    times.set_us(record.heartbeat.occurred_at, NOW)
    split = splitter().split(0, record.SerializeToString())
    assert (split.writes, split.event_us, split.repeat) == ([], NOW, False)


def test_the_catalogue_is_listed() -> None:
    item = Item(item_id=9, category=4)
    ((partition, event),) = splitter("catalog").split(0, item.SerializeToString()).writes
    assert partition == topics.partition_of(topics.entity_key(9), topics.FEATURE_EVENTS.partitions)
    assert event.listed.category == 4


def test_a_bad_message_does_not_take_the_good_ones_with_it() -> None:
    good, bare = messages(action("a"))[0][0], FeatureEvent(event_hash=1)
    kept, error = decode(FeatureEventBatch(events=[good, bare]).SerializeToString())
    assert kept == [(good, feature_events.view_events(good))]
    assert error is not None and "1 of 2" in str(error)
    assert decode(FeatureEventBatch(events=[good]).SerializeToString()) == (kept, None)


@pytest.mark.parametrize("value", [None, b"", b"\xff\xff"])
def test_a_record_without_events_is_malformed(value: bytes | None) -> None:
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


def key(view: str, *fields: int) -> bytes:
    return redis_keys.view_key(VIEWS[view], b"".join(topics.entity_key(field) for field in fields))


def messages(*records: EventRecord, first: int = 0, partition: int | None = None) -> list[Message]:
    """As they stand on one partition; by default on that of user 1."""
    here = of_user(1) if partition is None else partition
    return [
        (message, feature_events.view_events(message))
        for offset, record in enumerate(records, start=first)
        for where, message in feature_events.split(record, "actions", 0, offset, lambda _item: 3)
        if where == here
    ]


def of_user(user: int) -> int:
    return feature_events.owner(topics.entity_key(user))


# Items that live on user 1's partition, and elsewhere.
HERE = [item for item in range(100, 400) if of_user(item) == of_user(1)]
ELSEWHERE = [item for item in range(100, 400) if of_user(item) != of_user(1)]


def fold_of(offset: int = 0, marks: dict[str, int] | None = None, cache: int = 100) -> PartitionFold:
    return PartitionFold(of_user(1), offset, OriginMarks(marks), tuple(VIEWS.values()), cache)


def fold_all(
    fold: PartitionFold, events: list[Message], next_offset: int, stored: dict[bytes, bytes] | None = None
) -> Section:
    taken = fold.take(events)
    for name, (state, plan) in fold.missing(taken).items():
        fold.put(state, plan, (stored or {}).get(name))
    return fold.fold(taken, next_offset)


def clicks(section: Section, view: str, *fields: int) -> float:
    """All clicks that the state of an activity view counts."""
    plan = plan_of(VIEWS[view])
    value, _ = section.states[key(view, *fields)]
    record = records_of(plan, [value])
    index = next(i for i, slot in enumerate(plan.slots) if slot.events.kind == "acted")
    return int(record[f"tiles{index}"].sum() + record[f"base{index}"].sum())


def test_a_round_writes_each_owned_state_once_with_its_lifetime_and_the_marks() -> None:
    near, far = HERE[0], ELSEWHERE[0]
    section = fold_all(
        fold_of(10), messages(action("a", item=near), action("b", item=near), action("c", item=far)), 16
    )
    of_the_user = {key(view, 1) for view in ("user_activity", "user_history", "user_clicks")}
    of_the_item = {key(view, near) for view in ("item_activity", "item_popularity")}
    assert section.states.keys() == of_the_user | of_the_item | {key("user_category", 1, 3)}
    assert clicks(section, "item_activity", near) == 2
    assert clicks(section, "user_activity", 1) == 3
    assert {ttl for _, ttl in section.states.values()} == {
        redis_keys.ENTITY_TTL_S,
        ttl_s(VIEWS["item_popularity"]),
    }
    assert (section.from_offset, section.to_offset, section.events) == (10, 16, 3)
    assert section.marks == {"actions/0": 2 * 1024}
    hop = redis_keys.popular_key(redis_keys.popular_hop(NOW))
    assert section.popular == {(hop, topics.entity_key(near)): 2}


def test_a_repeated_round_changes_nothing() -> None:
    events = messages(action("a"), action("b"))
    first = fold_of()
    marks = fold_all(first, events, 4).marks
    again = fold_all(fold_of(4, marks), events, 8)
    assert (again.states, again.popular, again.events) == ({}, {}, 0)
    assert (again.to_offset, again.marks) == (8, marks)


def test_co_clicks_pair_a_click_with_the_users_last_five_other_items_both_ways() -> None:
    fold = fold_of()
    made = [action(f"e{i}", item=10 + i, at_us=NOW + i) for i in range(7)] + [
        action("again", item=16, at_us=NOW + 9)
    ]
    fold_all(fold, messages(*made[:6]), 1)
    section = fold_all(fold, messages(*made[6:], first=6), 2)

    def pair(one: int, other: int) -> tuple[bytes, bytes]:
        return redis_keys.co_click_key(one), topics.entity_key(other)

    assert section.co_clicks[pair(16, 15)] == 2
    assert section.co_clicks[pair(15, 16)] == 2
    assert section.co_clicks[pair(16, 11)] == 1
    assert pair(16, 10) not in section.co_clicks
    assert pair(16, 16) not in section.co_clicks


def test_a_fold_of_an_items_partition_pairs_nothing_and_counts_the_click() -> None:
    item = ELSEWHERE[0]
    fold = PartitionFold(of_user(item), 0, OriginMarks(), tuple(VIEWS.values()), 100)
    events = messages(action("a", item=item), action("b", item=item + 1), partition=of_user(item))
    section = fold_all(fold, events, 1)
    assert not section.co_clicks
    assert section.popular[redis_keys.popular_key(redis_keys.popular_hop(NOW)), topics.entity_key(item)] == 1
    assert key("item_activity", item) in section.states and key("user_activity", 1) not in section.states


def test_states_go_on_from_what_redis_holds_and_unreadable_ones_begin_anew() -> None:
    first = fold_all(fold_of(), messages(action("a", item=HERE[0])), 1)
    stored = {name: value for name, (value, _) in first.states.items()}
    stored[key("user_activity", 1)] = b"another version"
    fold = fold_of(1, first.marks)
    taken = fold.take(messages(action("b", item=HERE[0]), first=1))
    good = {name: fold.put(state, plan, stored[name]) for name, (state, plan) in fold.missing(taken).items()}
    assert [name for name, readable in good.items() if not readable] == [key("user_activity", 1)]
    section = fold.fold(taken, 2)
    assert clicks(section, "item_activity", HERE[0]) == 2
    assert clicks(section, "user_activity", 1) == 1


def test_the_cache_forgets_what_was_unused_for_longest_and_the_bytes_are_the_same() -> None:
    made = [action(f"e{i}", item=HERE[i % 7], at_us=NOW + i * 7 * MINUTE_US) for i in range(60)]
    small, large = fold_of(cache=3), fold_of(cache=1000)
    redis: list[dict[bytes, bytes]] = [{}, {}]
    for i in range(0, 60, 4):
        for fold, stored in zip((small, large), redis, strict=True):
            section = fold_all(fold, messages(*made[i : i + 4], first=i), i + 4, stored)
            stored.update({name: value for name, (value, _) in section.states.items()})
    assert redis[0] == redis[1]
    assert small.missing(small.take(messages(made[0], first=2_000)))
    assert not large.missing(large.take(messages(made[0], first=2_000)))


def test_barriers_are_named_with_the_partition_that_passed_them_and_the_origin() -> None:
    record = EventRecord()
    record.barrier.barrier_id = "b"
    event = feature_events.barrier_event(record.barrier, "impressions", 2, 7), []
    section = fold_all(fold_of(), [event, event], 2)
    assert section.barriers == [("b", f"{of_user(1)}:impressions/2")]


def test_the_first_write_of_a_partition_expects_no_offset() -> None:
    section = Section(2, -1, 9, redis_keys.mark_key(2))
    flat = arguments([(b"token", section)], 32, 1)
    assert flat[9] == len(flat) - 10
    assert flat[10:15] == [b"p:owner:2", b"token", b"p:mark:2", NO_OFFSET, 9]


def decayed(window_us: int, default: float) -> FeatureView:
    feature = Feature("n", Decayed(SHOWN, MINUTE_US), window_us, default)
    return FeatureView("v", 1, ("item_id",), ("shown",), (feature,), MINUTE_US)


def test_a_state_lives_as_long_as_it_can_still_say_something() -> None:
    hours = 6 * 60
    view = decayed(hours * MINUTE_US, 0.0)
    assert ttl_s(view) == 2 * (hours + 3) * 60
    assert ttl_s(decayed(MINUTE_US, 0.0)) == 3_600
    # What it says of nothing is not what it says of no state: it has to stay.
    assert ttl_s(decayed(hours * MINUTE_US, 1.0)) == redis_keys.ENTITY_TTL_S
    assert ttl_s(VIEWS["item_activity"]) == redis_keys.ENTITY_TTL_S
    plan = plan_of(view)
    state = ViewState(plan)
    state.values[2] = NOW
    state.values[plan.places[0].at] = 1
    at_us = np.array([NOW + 1, NOW + (hours + 2) * MINUTE_US], np.int64)
    said = read(view, records_of(plan, [state.pack()] * 2), at_us).values[:, 0]
    assert said[0] == 1 and said[1] == 0
