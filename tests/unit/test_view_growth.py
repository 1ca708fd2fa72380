"""A feature set grows at its end: names, hashes, columns, and the bits of those that were there before."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles.view_logs import HOP_US, case_from
from oracles.view_logs import views as any_view

from services.contract import features
from services.contract.errors import Conflict, InvalidInput, NotFound
from services.contract.feature_sets import FEATURE_SETS
from services.contract.feature_view import FeatureView
from services.contract.model_schema import shape_of
from services.contract.projection import Projection
from services.contract.view_aggregates import Count, Feature, Sum
from services.contract.view_codec import canonical
from services.contract.view_events import Event, Select
from services.contract.view_growth import MAX_VIEWS, SERVED_KEY, GrowingSet, key_of
from services.contract.view_registry import FeatureSet
from services.contract.views_world import TIME_OF_DAY, catalogue
from tests.feature_kit import FEATURES, states_of

HOUR_US = 3_600_000_000
DWELL = FeatureView(
    "item_dwell",
    1,
    ("item_id",),
    ("acted",),
    (Feature("dwell", Sum(Select("acted"), "dwell_s"), HOUR_US, scale="log1p", divide=8, limit=3),),
    HOUR_US // 6,
)
SEEN = FeatureView(
    "user_seen", 1, ("user_id",), ("shown",), (Feature("shown", Count(Select("shown")), HOUR_US),), HOUR_US
)


def growing(*records: tuple[bytes, str]) -> GrowingSet:
    """The world's set after some records."""
    made = GrowingSet("world", FEATURES)
    for key, value in records:
        made.take(key, value.encode())
    return made


def announced(view: FeatureView) -> tuple[bytes, str]:
    return key_of(view), canonical(view)


def served(*names: str) -> tuple[bytes, str]:
    return SERVED_KEY, "+".join(names)


A, B = announced(DWELL), announced(SEEN)
BOTH = "world+item_dwell.1+user_seen.1"


@pytest.mark.parametrize(
    ("records", "newest"),
    [
        ((), "world"),
        ((A, B), "world"),
        ((A, served("item_dwell.1")), "world+item_dwell.1"),
        ((A, B, served("user_seen.1")), "world+user_seen.1"),
        ((B, A, served("item_dwell.1"), served("item_dwell.1", "user_seen.1")), BOTH),
        # Compaction keeps one list; a repeated record changes nothing.
        ((B, A, served("item_dwell.1", "user_seen.1"), A), BOTH),
        # A view that was announced twice at once may stand behind the list in a compacted log.
        ((served("item_dwell.1", "user_seen.1"), B, A), BOTH),
        ((B, served("item_dwell.1", "user_seen.1")), "world"),
    ],
)  # fmt: skip
def test_the_served_views_stand_behind_the_named_set_in_their_order(records, newest) -> None:
    made = growing(*records)
    assert made.newest_name == newest
    prefixes = newest.split("+")
    assert list(made.sets) == ["+".join(prefixes[:n]) for n in range(1, len(prefixes) + 1)]
    for name, known in made.sets.items():
        assert made.name_of(known.schema_hash) == name
        assert made.shape(known.schema_hash) == shape_of(known)
        assert made.named(name) is known
    assert made.named("world") is FEATURES and made.newest_shape == shape_of(made.newest)


def test_the_hash_of_each_prefix_is_that_of_its_definitions_in_order() -> None:
    made = growing(A, B, served("item_dwell.1", "user_seen.1"))
    one, two = (made.named(f"world+{names}") for names in ("item_dwell.1", "item_dwell.1+user_seen.1"))
    assert one.schema_hash == FeatureSet((*FEATURES.views, DWELL)).schema_hash
    assert two.schema_hash == FeatureSet((*FEATURES.views, DWELL, SEEN)).schema_hash
    assert len({FEATURES.schema_hash, one.schema_hash, two.schema_hash}) == 3
    assert [c.name for c in two.candidate_columns] == [
        *(c.name for c in FEATURES.candidate_columns),
        "item_dwell_dwell",
    ]
    assert [c.name for c in two.request_columns] == [
        *(c.name for c in FEATURES.request_columns),
        "user_seen_shown",
    ]


@pytest.mark.parametrize(
    ("record", "error", "says"),
    [
        (announced(replace(DWELL, slack_hops=3)), Conflict, "needs version 2"),
        (announced(replace(DWELL, name="all", key=())), InvalidInput, "beginning with user_id or item_id"),
        (announced(TIME_OF_DAY), InvalidInput, "an instant view has no state"),
        ((b"item_dwell.1", "{}"), InvalidInput, "FeatureView"),
        (served(), Conflict, "do not go on from item_dwell.1"),
        (served("user_seen.1", "item_dwell.1"), Conflict, "do not go on from item_dwell.1"),
    ],
)
def test_what_contradicts_the_log_before_has_no_effect(record, error, says) -> None:
    made = growing(A, B, served("item_dwell.1"))
    with pytest.raises(error, match=says):
        made.take(record[0], record[1].encode())
    assert (made.newest_name, made.views) == ("world+item_dwell.1", [DWELL, SEEN])
    with pytest.raises(InvalidInput, match="text"):
        made.take(b"x", b"\xff")
    with pytest.raises(NotFound, match=r"there are world, world\+item_dwell.1"):
        made.named("world+user_seen.1")
    assert made.shape(1) is None and made.name_of(1) is None


def test_a_view_that_fits_no_set_is_folded_and_never_served() -> None:
    newer = replace(FEATURES.views[0], version=2, description="another")
    clash = replace(DWELL, name="item", features=(replace(DWELL.features[0], name="activity_ctr"),))
    made = growing(announced(newer), announced(clash), A)
    assert made.views == [newer, clash, DWELL]
    assert "once in a set" in str(made.refusal(newer)) and "item_activity_ctr" in str(made.refusal(clash))
    assert made.refusal(DWELL) is None and made.served_with(DWELL) == b"item_dwell.1"
    with pytest.raises(InvalidInput, match="once in a set"):
        made.take(
            *(part if isinstance(part, bytes) else part.encode() for part in served("item.1", "item_dwell.1"))
        )
    assert made.newest_name == "world" and list(made.served) == []
    for number in range(MAX_VIEWS):
        view = replace(DWELL, name=f"more{number}")
        made.add(view)
        if (why := made.refusal(view)) is not None:
            assert f"at most {MAX_VIEWS}" in why
            break
        made.take(SERVED_KEY, made.served_with(view))
    assert len(made.newest.views) == MAX_VIEWS


KEYS = [("user_id",), ("item_id",), ("item_id",), ("user_id", "category"), ("item_id", "category")]


@st.composite
def wider(draw: st.DrawFn) -> tuple[FeatureSet, FeatureSet]:
    """A set, and it with some random views behind its own."""
    made = [catalogue(HOP_US), TIME_OF_DAY]
    made += [
        replace(draw(any_view()), name=f"random{index}", key=draw(st.sampled_from(KEYS)))
        for index in range(draw(st.integers(1, 6)))
    ]
    return FeatureSet(made[: draw(st.integers(2, len(made) - 1))]), FeatureSet(made)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(wider(), st.integers(0, 2**32 - 1))
def test_the_older_sets_columns_of_the_newer_ones_encoding_are_its_own_encoding(pair, seed: int) -> None:
    older, newer = pair
    rng = random.Random(seed)
    events = [event for event, _ in case_from(60, seed)[0]]
    events += [
        Event("listed", 0, item, {"item_id": item, "category": item % 3, "created_at": 7}, "catalog/0", item)
        for item in (1, 5)
    ]
    at_us = max(event.occurred_us for event in events) + rng.choice((-HOP_US, 0, 1, HOP_US))
    ids = np.array([rng.choice([1, 2**64 - 1, 5, 6]) for _ in range(rng.randrange(5))], np.uint64)
    user = rng.choice((1, 2**64 - 1))
    of_older = features.encode(older, states_of(events, older), user, ids, max(1, at_us))
    of_newer = features.encode(newer, states_of(events, newer), user, ids, max(1, at_us))
    taken = Projection(shape_of(newer), shape_of(older))
    assert taken.lacks == ()
    assert taken.user(of_newer.user).tobytes() == of_older.user.tobytes()
    assert taken.items(of_newer.items).tobytes() == of_older.items.tobytes()
    assert np.shares_memory(taken.items(of_newer.items), of_newer.items) or not len(ids)
    same = Projection(shape_of(newer), shape_of(newer))
    assert same.items(of_newer.items) is of_newer.items

    back = Projection(shape_of(older), shape_of(newer))
    names = [column.name for column in (*newer.request_columns, *newer.candidate_columns)]
    had = {column.name for column in (*older.request_columns, *older.candidate_columns)}
    assert list(back.lacks) == [name for name in names if name not in had]
    filled = back.items(of_older.items, newer.item_defaults)
    assert filled[:, : older.item_width].tobytes() == of_older.items.tobytes()
    rest = np.broadcast_to(newer.item_defaults, filled.shape)[:, older.item_width :]
    assert filled[:, older.item_width :].tobytes() == rest.tobytes()


def test_columns_are_found_by_name_in_any_order_and_nothing_is_invented() -> None:
    movies = shape_of(FEATURE_SETS["movielens"])
    turned = replace(
        movies, user_columns=movies.user_columns[::-1], item_columns=(*movies.item_columns[3:], "new")
    )
    there = Projection(movies, turned)
    assert there.lacks == ("new",)
    row = np.arange(movies.user_width, dtype=np.float32)
    assert there.user(row).tolist() == row[::-1].tolist()
    items = np.arange(2 * movies.item_width, dtype=np.float32).reshape(2, -1)
    with pytest.raises(ValueError, match="columns lack"):
        there.items(items)
    defaults = np.full(turned.item_width, 7, np.float32)
    assert there.items(items, defaults).tolist() == [[*row[3:], 7.0] for row in items.tolist()]
