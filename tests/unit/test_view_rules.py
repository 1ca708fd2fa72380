"""The rules of feature_view on their edges, said by all three interpreters alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
from oracles.view_logs import Store, labels_of, there

from services.contract.errors import MalformedRecord
from services.contract.feature_view import SPARE, FeatureView
from services.contract.view_aggregates import (
    Aggregate,
    Count,
    Decayed,
    Distinct,
    Elapsed,
    Feature,
    Instant,
    LastK,
    Max,
    Mean,
    Min,
    Ratio,
    Sum,
)
from services.contract.view_asof import asof
from services.contract.view_events import Condition, Event, Select
from services.contract.view_fold import fold
from services.contract.view_log import log_of
from services.contract.view_plan import plan_of
from services.contract.view_read import read, records_of
from services.contract.view_registers import estimate, register_columns
from services.contract.view_replay import Ask, replay
from services.contract.view_state import ViewState

HOP = 1_000
SHOWN, ACTED = Select("shown"), Select("acted")
CLICKED = Select("acted", (Condition("action", "eq", 1),))


def view(aggregate: Aggregate, window_us: int = 0, **more) -> FeatureView:
    feature = Feature("f", aggregate, window_us, -7.0, limit=None)
    return FeatureView("v", 1, ("user_id",), ("shown", "acted"), (feature,), HOP, **more)


def shown(at_us: int, sequence: int = 0, **fields: int) -> Event:
    given = {"user_id": 1, "item_id": 5, "category": 3, "position": 0} | fields
    return Event("shown", at_us, sequence, given, "s/0", sequence)


def acted(at_us: int, sequence: int = 0, hashed: int | None = None, **fields: int) -> Event:
    given = {"user_id": 1, "item_id": 5, "category": 3, "action": 1, "dwell_s": 0} | fields
    return Event("acted", at_us, sequence if hashed is None else hashed, given, "a/0", sequence)


def said(
    of: FeatureView, events: list[Event], at_us: int, mode: str = "ideal", **fields: int
) -> float | None:
    """What all three say; None = missing, which is the default."""
    row = Ask({"user_id": 1, "item_id": 5, "category": 3} | fields, at_us, wall_us=1)
    log = [(event, 0) for event in events]
    trusted = replay(of, log, row, mode)
    store = Store.empty()
    for event in there(of, log, row, mode, 0):
        store.fold(of, [event])
    assert store.ask(of, row) == trusted
    joined = asof(of, log_of(events, [0] * len(events)), labels_of([row]), mode)
    assert joined.values[0].tolist() == list(trusted.values)
    assert bool(joined.missing[0]) is trusted.missing
    if trusted.missing:
        assert trusted.values == (-7.0,)
        return None
    return trusted.values[0]


@pytest.mark.parametrize(
    ("event_us", "at_us", "counted"),
    [
        (4_999, 5_000, 1),
        (5_000, 5_000, None),  # at t: not before it, and then there is nothing at all
        (5_000, 5_001, 1),
        # Two hops before the hop of t, and the head.
        (3_000, 5_000, 1),
        (2_999, 5_000, 0),
        (3_000, 5_999, 1),
        (2_999, 5_999, 0),
        (4_000, 6_000, 1),
        (3_999, 6_000, 0),
        (5_998, 5_999, 1),
        (5_999, 5_999, None),
    ],
)
def test_a_window_is_its_full_hops_and_the_head_before_t(event_us, at_us, counted):
    assert said(view(Count(SHOWN), 2 * HOP), [shown(event_us)], at_us) == counted


@pytest.mark.parametrize(
    ("newest_us", "at_us", "counted"),
    [
        # Nothing overtook: 4,200 is in the head of 4,500.
        (4_400, 4_500, 3),
        # At t or after it, in the hop of t or the next: the head does not count, the hop before it does.
        (4_500, 4_500, 1),
        (4_501, 4_500, 1),
        (5_999, 4_500, 1),
        # Two hops ahead is within the slack, three is not.
        (6_999, 4_500, 1),
        (7_000, 4_500, None),
    ],
)
def test_nothing_at_or_after_t_counts_in_a_served_state(newest_us, at_us, counted):
    events = [shown(3_100), shown(4_200, 1), shown(newest_us, 2)]
    assert said(view(Count(SHOWN), 1 * HOP), events, at_us, "as_served") == counted
    assert said(view(Count(SHOWN)), events, at_us, "as_served") == counted


def test_a_late_event_counts_in_the_tile_where_it_belongs():
    late = view(Count(SHOWN), 2 * HOP)
    events = [shown(9_500), shown(7_000, 1), shown(6_999, 2)]
    assert said(late, events, 9_600, "as_served") == 2
    assert said(view(Count(SHOWN)), events, 9_600, "as_served") == 3


def test_a_batch_view_changes_once_a_hop():
    daily = view(Count(SHOWN), 2 * HOP, kind="batch")
    events = [shown(3_000), shown(4_999, 1), shown(5_000, 2)]
    assert [said(daily, events, at) for at in (5_000, 5_001, 5_999, 6_000)] == [2, 2, 2, 2]
    # Somebody was there; the hop is not over.
    assert [said(daily, [shown(5_000)], at) for at in (5_000, 5_999, 6_000)] == [None, 0, 1]
    newest = view(LastK(SHOWN, ("item_id",), 2, "count"), kind="batch")
    assert [said(newest, events, at) for at in (4_999, 5_000, 5_999, 6_000)] == [1, 2, 2, 2]


def test_a_batch_view_says_all_through_a_hop_what_it_says_at_the_end_of_the_one_before():
    """Of a state that has folded the whole hop meanwhile: the same as of one that has not."""
    daily = view(Count(SHOWN), 2 * HOP, kind="batch")
    before = [shown(3_000), shown(4_999, 1)]
    later = [*before, shown(5_000, 2), shown(5_400, 3), shown(5_800, 4)]
    for at in (5_000, 5_500, 5_999):
        assert said(daily, later, at, "as_served") == said(daily, before, at, "as_served") == 2


EVENTS = [
    acted(1_000, 0, dwell_s=4_000_000, item_id=8),
    acted(2_500, 1, dwell_s=-1_500_000, item_id=9),
    acted(2_500, 2, dwell_s=500_000, item_id=9, action=2, category=4),
    shown(2_600, 3),
    shown(2_700, 4),
]


@pytest.mark.parametrize(
    ("aggregate", "window_us", "value"),
    [
        (Count(ACTED), 0, 3),
        (Count(ACTED), HOP, 2),
        (Sum(ACTED, "dwell_s"), 0, 3.0),
        (Min(ACTED, "dwell_s"), 0, -1.5),
        (Max(ACTED, "dwell_s"), 0, 4.0),
        (Max(ACTED, "dwell_s"), HOP, 0.5),
        (Mean(ACTED, "dwell_s"), 0, 1.0),
        (Mean(CLICKED, "dwell_s"), HOP, -1.5),
        (Ratio(SHOWN, CLICKED, 0.25, 8.0), 0, (2 + 2) / (2 + 8)),
        # More hits than events: a click was there before its impression.
        (Ratio(SHOWN, ACTED, 0.25, 8.0), 0, (3 + 2) / (3 + 8)),
        (Ratio(SHOWN, CLICKED, 0.5, 2.0, "lift"), 0, math.log(3.0)),
        # A weight of 1/4 for two hops ago, 1/2 for one.
        (Decayed(ACTED, HOP), 3 * HOP, 0.25 + 2 * 0.5),
        (Distinct(ACTED, "item_id"), 0, 64 * math.log(64 / 62)),
        (Elapsed(ACTED, "first"), 0, 0.0025),
        (Elapsed(ACTED, "last"), 0, 0.001),
        (LastK(ACTED, ("item_id",), 2, "count"), 0, 2),
        (LastK(ACTED, ("item_id",), 2, "seconds"), 0, 0.001),
        (LastK(ACTED, ("dwell_s",), 2, "value", "dwell_s"), 0, 0.5),
        (LastK(ACTED, ("category",), 2, "share_of", "category"), 0, 0.5),
        (LastK(ACTED, ("category",), 3, "share_of", "category"), 0, 2 / 3),
        (LastK(ACTED, ("category",), 2, "newest_is", "category"), 0, 0),
        (LastK(ACTED, ("category",), 2, "contains", "category"), 0, 1),
        (LastK(ACTED, ("item_id",), 2, "contains", "item_id"), 0, 0),
        # In the window, and of what never was.
        (LastK(ACTED, ("item_id",), 3, "count"), HOP, 2),
        (LastK(ACTED, ("item_id",), 3, "count"), 2 * HOP, 3),
        (Mean(Select("acted", (Condition("action", "eq", 4),)), "dwell_s"), 0, -7.0),
        (Count(Select("acted", (Condition("action", "eq", 4),))), 0, 0),
    ],
)
def test_what_an_aggregate_says(aggregate, window_us, value):
    assert said(view(aggregate, window_us), EVENTS, 3_500) == np.float32(value)


@pytest.mark.parametrize(("event_us", "count"), [(3_000, 1), (2_999, 0)])
def test_last_k_in_a_window_begins_on_a_hop(event_us, count):
    assert said(view(LastK(ACTED, ("item_id",), 3, "count"), 2 * HOP), [acted(event_us)], 5_500) == count


def test_last_k_is_ordered_by_time_then_hash_and_forgets_the_overtaking():
    newest = LastK(ACTED, ("category",), 1, "value", "category")
    ties = [acted(2_000, 0, 7, category=1), acted(2_000, 1, 9, category=2), acted(2_000, 2, 8, category=3)]
    assert said(view(newest), ties, 2_001) == 2
    overtaking = [acted(2_500 + i, 3 + i, category=5) for i in range(SPARE)]
    assert said(view(newest), ties + overtaking, 2_400, "as_served") == 2
    # One more than is spared: the list has forgotten what was before t.
    overtaking.append(acted(2_600, 9, category=5))
    assert said(view(newest), ties + overtaking, 2_400, "as_served") == -7.0


def test_the_time_of_day_comes_from_the_request():
    features = (Feature("sin", Instant("day_sin")), Feature("cos", Instant("day_cos")))
    clock = FeatureView("clock", 1, (), (), features, 0, kind="instant")
    at_us = np.arange(0, 3 * 86_400_000_000, 1_234_567_891)
    found = read(clock, np.empty(0), at_us)
    turn = at_us % 86_400_000_000 / 86_400_000_000 * 2 * np.pi
    np.testing.assert_allclose(found.values, np.stack([np.sin(turn), np.cos(turn)], axis=1), atol=1e-7)
    replayed = [replay(clock, [], Ask({}, int(at))).values for at in at_us]
    assert np.array_equal(found.values, np.array(replayed, np.float32))


def test_one_entity_meets_many_candidates():
    of = FeatureView(
        "v",
        1,
        ("user_id",),
        ("acted",),
        (
            Feature("again", LastK(ACTED, ("item_id",), 3, "contains", "item_id")),
            Feature("n", Count(ACTED), scale="log1p"),
        ),
        HOP,
    )
    value = None
    for event in EVENTS[:3]:
        value = fold(of, value, event)
    one, many = records_of(plan_of(of), [value]), records_of(plan_of(of), [value] * 4)
    candidate = {"item_id": np.array([7, 8, 9, 10], np.uint64)}
    met = read(of, one, np.array([3_500]), candidate)
    each = read(of, many, np.full(4, 3_500), candidate)
    assert met.values.tolist() == each.values.tolist()
    assert met.values[:, 0].tolist() == [0, 1, 1, 0]
    assert met.missing.tolist() == each.missing.tolist() == [0, 0, 0, 0]


def test_no_event_or_bytes_of_another_view_are_missing():
    counted, other = view(Count(SHOWN)), view(Count(SHOWN), HOP)
    plan = plan_of(counted)
    state = fold(counted, None, shown(1_000))
    values = [state, None, fold(other, None, shown(1_000)), state[:-1], bytes([9]) + state[1:]]
    found = read(counted, records_of(plan, values), np.full(5, 1_500))
    assert found.missing.tolist() == [0, 1, 1, 1, 1]
    assert found.values[:, 0].tolist() == [1, -7, -7, -7, -7]
    with pytest.raises(MalformedRecord, match=r"view state=.*bytes, version 1, of v"):
        ViewState.unpack(plan, values[3])
    assert (
        fold(counted, state, Event("listed", 5, 0, {"item_id": 1, "category": 0, "created_at": 0})) == state
    )


@pytest.mark.parametrize("precision", [5, 6, 8])
@pytest.mark.parametrize("different", [3, 40, 200, 1_000, 50_000])
def test_distinct_keeps_its_stated_error(precision, different):
    m = 1 << precision
    errors = []
    for seed in range(40):
        values = np.random.default_rng(seed).integers(0, 1 << 63, different).astype(np.uint64)
        register, rank = register_columns(values, m)
        registers = np.zeros((1, m), np.uint8)
        np.maximum.at(registers[0], register, rank)
        errors.append(estimate(registers)[0] / different - 1)
    # The root of the mean square of 40 is itself known to about a ninth.
    assert np.sqrt(np.mean(np.square(errors))) < 1.5 * 1.25 * 1.04 / math.sqrt(m)


def test_a_state_never_grows():
    last = LastK(ACTED, ("item_id",), 3, "contains", "item_id")
    of = FeatureView("v", 1, (), ("acted",), (Feature("a", last), Feature("b", Count(ACTED), 5 * HOP)), HOP)
    state, size = None, plan_of(of).layout.size
    for at in range(0, 300_000, 1_700):
        state = fold(of, state, acted(at, at, item_id=at))
        assert len(state) == size
