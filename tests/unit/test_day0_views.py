"""What a seed makes of day 0: the states, marks and sorted sets that the loop itself would have left."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from loadgen import day0_clicks, day0_views
from rec.events.v1.events_pb2 import (
    ACTION_KIND_CLICK,
    ACTION_KIND_LIKE,
    ActionKind,
    EventRecord,
    Heartbeat,
    Item,
)
from services.contract import feature_events, redis_keys, times, topics
from services.contract.feature_sets import feature_set
from services.contract.view_events import Event
from services.contract.view_fold import OriginMarks, StateKey, ViewFold
from services.contract.view_log import EventLog, log_of
from services.contract.view_plan import plan_of
from services.contract.view_read import read, records_of
from services.feature_pipeline.fold_batch import PartitionFold

AT_US = 1_767_225_600_000_000
ITEMS, USERS = 40, 9
CATEGORIES = {item: item % 5 for item in range(1, ITEMS + 1)}
CREATED = {item: 0 if item == 3 else AT_US - item * 1_000_000 for item in CATEGORIES}
VIEWS = [view for view in feature_set("world").views if view.kind != "instant"]


def records(count: int = 400, kinds: list[ActionKind.ValueType] | None = None) -> list[EventRecord]:
    """Impressions, clicks and likes of three hours, in time order; a heartbeat at the end."""
    rng = random.Random(4)
    made: list[tuple[int, EventRecord]] = []
    for number in range(count):
        at_us = AT_US + number * 27_000_001
        user, items = rng.randint(1, USERS), rng.sample(range(1, ITEMS + 1), 4)
        record = EventRecord()
        record.impression.event_id, record.impression.user_id = f"q{number}:shown", user
        record.impression.item_ids.extend(items)
        times.set_us(record.impression.occurred_at, at_us)
        made.append((at_us, record))
        for item in items[: rng.randint(0, 3)]:
            record = EventRecord()
            action = record.action
            action.event_id, action.user_id, action.item_id = f"q{number}:{item}", user, item
            action.kind = rng.choice(kinds or [ACTION_KIND_CLICK, ACTION_KIND_CLICK, ACTION_KIND_LIKE])
            action.dwell.FromMicroseconds(rng.randint(0, 9_000_000))
            later_us = at_us + rng.randint(1, 20_000_000)
            times.set_us(action.occurred_at, later_us)
            made.append((later_us, record))
    made.sort(key=lambda pair: pair[0])
    return [*(record for _, record in made), EventRecord(heartbeat=Heartbeat(writer="day0"))]


def listing(item: int, by_us: int = 0) -> tuple[int, Event]:
    created_us = CREATED[item] + by_us if CREATED[item] else 0
    listed = Item(item_id=item, category=CATEGORIES[item], created_at=times.from_us(created_us))
    where, message = feature_events.listed(listed, 0, item - 1)
    return where, feature_events.view_events(message)[0]


def as_the_loop_sees_it(events: list[EventRecord], by_us: int) -> list[tuple[int, Event]]:
    """(partition, view event) by the pipeline's own split, all that happened moved by ``by_us``."""
    found = [listing(item, by_us) for item in CATEGORIES]
    for offset, event in enumerate(events):
        kind = event.WhichOneof("record")
        if kind not in ("impression", "action"):
            continue
        copy = EventRecord.FromString(event.SerializeToString())
        one = getattr(copy, kind)
        times.set_us(one.occurred_at, times.to_us(one.occurred_at) + by_us)
        topic = topics.IMPRESSIONS.name if kind == "impression" else topics.ACTIONS.name
        for where, message in feature_events.split(copy, topic, 0, offset, CATEGORIES.__getitem__):
            found += [(where, said) for said in feature_events.view_events(message)]
    return found


def day(events: list[EventRecord]) -> EventLog:
    """As it stands in the file."""
    whole = [event for _, event in as_the_loop_sees_it(events, 0)]
    columns = day0_views.columns(log_of(whole, [0] * len(whole)))
    table = pa.Table.from_arrays([pa.array(column) for column in columns], schema=day0_views.SCHEMA)
    return day0_views.log_of(table)


@pytest.mark.parametrize("by_us", [0, 61_000_007, 30_000_000_000_000])
def test_first_states_are_what_the_loop_would_have_folded_had_it_happened_then(by_us: int) -> None:
    events = records()
    log = day0_views.moved(day(events), by_us)
    made = {
        (view.definition_hash, entity): state
        for view in VIEWS
        for entity, state in day0_views.states(view, log).items()
    }
    folded: dict[StateKey, bytes] = {}
    for partition in range(feature_events.PARTITIONS):

        def owns(entity: bytes, partition: int = partition) -> bool:
            return feature_events.owner(entity) == partition

        fold = ViewFold(VIEWS, OriginMarks(), folded.get, owns)
        here = [event for where, event in as_the_loop_sees_it(events, by_us) if where == partition]
        folded.update(fold.round(here).states)
    assert made == folded and len(made) > 150


def test_the_marks_are_those_of_the_cut_and_stop_no_event_of_the_loop() -> None:
    log = day(records(50))
    marks = day0_views.states(VIEWS[0], log).marks
    assert marks == {day0_views.ORIGIN: len(log) - 1}
    fold = PartitionFold(0, -1, OriginMarks(marks), VIEWS, 10)
    message = feature_events.listed(Item(item_id=1), 0, 0)[1]
    taken = fold.take([(message, feature_events.view_events(message))])
    assert taken.repeats == 0 and fold.fold(taken, 1).marks == marks | {"catalog/0": 0}


def test_what_kafkas_catalogue_says_later_counts_more_than_the_seed() -> None:
    view = next(view for view in VIEWS if view.name == "item_catalogue")
    stored = dict(day0_views.states(view, day(records(5))).items())
    item = (7).to_bytes(8, "little")
    fold = ViewFold([view], OriginMarks(), lambda key: stored.get(key[1]))
    for offset, category in ((6, CATEGORIES[7]), (40, 9), (41, 8)):
        listed = Item(item_id=7, category=category, created_at=times.from_us(CREATED[7]))
        change = fold.round(feature_events.view_events(feature_events.listed(listed, 0, offset)[1]))
        stored |= {entity: state for (_, entity), state in change.states.items()}
    said = read(view, records_of(plan_of(view), [stored[item]]), np.array([AT_US]))
    assert said.values[0, 0] == 8 and not said.missing[0]


def test_popular_clicks_fall_into_the_hops_of_their_time() -> None:
    log = day0_views.moved(day(records()), 123_456_789)
    hops, clicked = day0_views.popular(log), day0_clicks.clicks(log)
    newest = redis_keys.popular_hop(int(clicked.occurred_us.max()))
    assert max(hops) == newest and min(hops) > newest - redis_keys.POPULAR_HOPS
    recent = clicked.occurred_us >= (newest - redis_keys.POPULAR_HOPS + 1) * redis_keys.POPULAR_HOP_US
    assert sum(sum(clicks.values()) for clicks in hops.values()) == recent.sum() > 0
    assert recent.sum() < len(recent)


def test_co_clicks_are_those_that_the_fold_counts() -> None:
    events = records(kinds=[ACTION_KIND_CLICK])
    clicked = day0_clicks.clicks(day(events))
    counted: dict[tuple[int, int], int] = {}
    folds = [
        PartitionFold(partition, -1, OriginMarks(), VIEWS, 1_000)
        for partition in range(feature_events.PARTITIONS)
    ]
    for offset, event in enumerate(events):
        if not event.HasField("action"):
            continue
        for where, message in feature_events.split(event, "actions", 0, offset, CATEGORIES.__getitem__):
            taken = folds[where].take([(message, feature_events.view_events(message))])
            for key, plan in folds[where].missing(taken).values():
                folds[where].put(key, plan, None)
            for (name, member), more in folds[where].fold(taken, offset).co_clicks.items():
                pair = int.from_bytes(name[-8:], "little"), int.from_bytes(member, "little")
                counted[pair] = counted.get(pair, 0) + more
    assert {(item, other): n for item, other, n in day0_clicks.co_clicks(clicked).tolist()} == counted
    assert len(counted) > 100
