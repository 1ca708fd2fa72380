"""The feature server's own way of reading states against the reference encoding: the same bits."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from feature_kit import reply_of, shown, states_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles.view_logs import HOP_US, case_from, views

from rec.v1.feature_pb2 import GetFeaturesResponse
from services.contract import features, redis_keys
from services.contract.feature_view import FeatureView
from services.contract.view_aggregates import Count, Elapsed, Feature, LastK
from services.contract.view_events import Event
from services.contract.view_registry import FeatureSet
from services.contract.views_world import SHOWN, TIME_OF_DAY, catalogue
from services.feature.answer import Reading
from services.feature.near_cache import NearCache
from services.feature.program import ITEM, Layout
from services.feature.query import Query
from services.runtime.resp import Column, Reply

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
KEYS = [
    (),
    ("user_id",),
    ("item_id",),
    ("item_id",),
    ("category",),
    ("user_id", "category"),
    ("category", "user_id"),
    ("item_id", "category"),
    ("user_id", "item_id"),
]
ITEMS = [1, 2**64 - 1, 5, 6]


@st.composite
def sets(draw: st.DrawFn) -> FeatureSet:
    """The catalogue and random views of all keys."""
    made: list[FeatureView] = [catalogue(HOP_US), TIME_OF_DAY]
    for index in range(draw(st.integers(1, 5))):
        view = draw(views())
        made.append(replace(view, name=f"random{index}", key=draw(st.sampled_from(KEYS))))
    return FeatureSet(draw(st.permutations(made)))


class Redis:
    """Just what the server sees of it."""

    def __init__(self, feature_set: FeatureSet) -> None:
        self.feature_set = feature_set
        self.states: dict[tuple[str, bytes], bytes] = {}
        self._values: dict[bytes, bytes] = {}
        self._events: list[Event] = []

    def fold(self, events: list[Event]) -> list[int]:
        """The items whose states changed."""
        self._events += events
        now = states_of(self._events, self.feature_set)
        item_views = {view.name for view in Layout(self.feature_set).groups[ITEM]}
        changed = {key for key in now if now[key] != self.states.get(key)}
        self.states = now
        named = {view.name: view for view in self.feature_set.views}
        self._values = {redis_keys.view_key(named[name], entity): v for (name, entity), v in now.items()}
        return [int.from_bytes(entity, "little") for name, entity in changed if name in item_views]

    def read(self, reading: Reading) -> None:
        reading.take_first(self._reply(reading.first()))
        reading.take_second(self._reply(reading.second()))

    def _reply(self, columns: list[Column]) -> Reply:
        keys = [p + rest[at : at + size] for p, rest, size in columns for at in range(0, len(rest), size)]
        return reply_of([self._values.get(key) for key in keys])


@SETTINGS
@given(sets(), st.integers(0, 2**32 - 1), st.integers(0, 6), st.booleans())
def test_answers_are_the_reference_encoding_while_events_and_hops_go_on(
    feature_set: FeatureSet, seed: int, spare: int, invalidates: bool
) -> None:
    """Near rows live through writes, hop ends, requests back and forth in time, and evictions."""
    rng = random.Random(seed)
    events = [event for event, _ in case_from(60, seed)[0]]
    for item in ITEMS[:3]:
        listing = Event(
            "listed",
            rng.randrange(3 * HOP_US),
            item % 7,
            {"item_id": item, "category": rng.randrange(3), "created_at": rng.randrange(HOP_US)},
            "catalog/0",
            item % 2**62,
        )
        events.insert(0, listing)
    redis, layout = Redis(feature_set), Layout(feature_set)
    near = NearCache(layout, 4 + spare, 10.0)
    for turn in range(8):
        written = redis.fold([events.pop(0) for _ in range(min(len(events), rng.randrange(20)))])
        if invalidates:
            near.drop(np.array(written, np.uint64))
        else:
            near.clear()
        for _ in range(3):
            seen = [event.occurred_us for event in redis._events] or [HOP_US]
            last = max(seen) if rng.random() < 0.6 else rng.choice(seen)
            at_us = max(1, last + rng.choice((-HOP_US, -1, 0, 0, 1, 1, 2, HOP_US, 2 * HOP_US)))
            if rng.random() < 0.3:
                at_us = max(1, at_us // HOP_US * HOP_US + rng.choice((-1, 0, 1)))
            ids = np.array([rng.choice([*ITEMS, 90 + turn]) for _ in range(rng.randrange(5))], np.uint64)
            user = rng.choice((1, 2**64 - 1))
            reading = Reading(layout, Query(user, ids, at_us), near, turn)
            redis.read(reading)
            answer = GetFeaturesResponse.FromString(reading.build().data)
            wanted = features.encode(feature_set, redis.states, user, ids, at_us)
            assert answer.user_features == wanted.user.tobytes()
            assert answer.item_features == wanted.items.tobytes()
            masks = np.frombuffer(answer.missing_item_views, "<u4")
            for bit, view in enumerate(feature_set.views):
                missing = wanted.missing[view.name]
                if features.of_request(view):
                    if any(c.view is view for c in feature_set.request_columns):
                        assert bool(answer.missing_user_views >> bit & 1) == bool(missing[0])
                elif len(ids):
                    assert np.array_equal(masks >> bit & 1, np.broadcast_to(missing, len(ids)))


# Two items whose newest event is inside a hop and on its edge, under views of one or two hops.
EVENTS_US = {1: (9_001, 10_000, 10_400, 10_401), 2: (9_999, 11_000)}
TILED = (
    Feature("window", Count(SHOWN), 2 * HOP_US),
    Feature("ever", Count(SHOWN)),
    Feature("away", Elapsed(SHOWN, "last")),
)
# A row with one of these holds for a moment only while an event has overtaken the request.
KEPT = (
    Feature("latest", LastK(SHOWN, ("position",), 2, "count"), 2 * HOP_US),
    Feature("last", LastK(SHOWN, ("position",), 1, "value", "position")),
)


@pytest.mark.parametrize("shape", [((TILED, 1),), ((TILED, 1), (TILED, 2)), ((TILED + KEPT, 1), (TILED, 2))])
def test_a_kept_row_says_at_any_moment_what_it_would_have_said_then(
    shape: tuple[tuple[tuple[Feature, ...], int], ...],
) -> None:
    """Every ordered pair of moments around events and hop ends: computed at the first, asked at the other."""
    made = [
        FeatureView(f"hop{hops}", 1, ("item_id",), ("shown",), aggregates, hops * HOP_US, owner="test")
        for aggregates, hops in shape
    ]
    feature_set = FeatureSet([catalogue(HOP_US), TIME_OF_DAY, *made])
    redis, layout = Redis(feature_set), Layout(feature_set)
    log = [(item, at_us) for item, times in EVENTS_US.items() for at_us in times]
    redis.fold([shown(1, item, 0, at_us, number) for number, (item, at_us) in enumerate(log)])
    edges = [*range(8 * HOP_US, 17 * HOP_US, HOP_US), *(at_us for _, at_us in log)]
    moments = sorted({edge + beside for edge in edges for beside in (-1, 0, 1)})
    ids = np.array(list(EVENTS_US), np.uint64)
    wanted = {t: features.encode(feature_set, redis.states, 1, ids, t).items.tobytes() for t in moments}
    assert len(set(wanted.values())) > len(moments) // 2
    near = NearCache(layout, len(ids), 10.0)

    def said(at_us: int) -> bytes:
        reading = Reading(layout, Query(1, ids, at_us), near, 0)
        redis.read(reading)
        return GetFeaturesResponse.FromString(reading.build().data).item_features

    for first in moments:
        for second in moments:
            assert said(first) == wanted[first]
            assert said(second) == wanted[second], (first, second)
