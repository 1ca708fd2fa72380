"""The fold: order does not matter, windows move with event time, nothing overflows."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK, ACTION_KIND_HIDE, FeatureEvent
from services.contract import times
from services.contract.errors import MalformedRecord
from services.contract.feature_fold import ItemState, UserState, fold, last_clicked_items
from services.contract.feature_layout import LAST_CLICKS, MAX_U16, TILE_US, TILES

NOW = 1_760_000_000_000_000


def item_event(kind: str, at_us: int, number: int = 0) -> FeatureEvent:
    event = FeatureEvent(event_id=f"e{number}", occurred_at=times.from_us(at_us))
    if kind == "shown":
        event.item_shown.item_id = 5
    else:
        event.item_acted.item_id = 5
        event.item_acted.kind = ACTION_KIND_CLICK if kind == "click" else ACTION_KIND_HIDE
    return event


def user_event(kind: str, at_us: int, number: int = 0) -> FeatureEvent:
    event = FeatureEvent(event_id=f"e{number}", occurred_at=times.from_us(at_us))
    if kind == "shown":
        event.user_shown.user_id = 7
        event.user_shown.categories.extend([number % 5, 3])
    else:
        acted = event.user_acted
        acted.user_id, acted.item_id, acted.category = 7, 100 + number, number % 5
        acted.kind = ACTION_KIND_CLICK if kind == "click" else ACTION_KIND_HIDE
    return event


# Whole seconds, so that several events share one; 20 minutes, so that some tiles fall out of the ring.
EVENTS = st.lists(
    st.tuples(st.sampled_from(["shown", "click", "hide"]), st.integers(0, 1200)), min_size=1, max_size=40
)


@given(EVENTS, st.randoms(use_true_random=False))
def test_any_order_of_the_same_events_gives_the_same_bytes(events, shuffler: random.Random) -> None:
    for make, state_type in ((item_event, ItemState), (user_event, UserState)):
        made = [make(kind, NOW + second * times.MICROS, i) for i, (kind, second) in enumerate(events)]
        ordered, shuffled = state_type(), state_type()
        for event in sorted(made, key=lambda e: times.to_us(e.occurred_at)):
            fold(ordered, event)
        shuffler.shuffle(made)
        for event in made:
            fold(shuffled, event)
        assert ordered.pack() == shuffled.pack()


@given(EVENTS)
def test_unpack_is_the_inverse_of_pack_at_any_point(events) -> None:
    item, user = ItemState(3, NOW - 5), UserState()
    for i, (kind, second) in enumerate(events):
        item, user = ItemState.unpack(item.pack()), UserState.unpack(user.pack())
        fold(item, item_event(kind, NOW + second * times.MICROS, i))
        fold(user, user_event(kind, NOW + second * times.MICROS, i))
    straight_item, straight_user = ItemState(3, NOW - 5), UserState()
    for i, (kind, second) in enumerate(events):
        fold(straight_item, item_event(kind, NOW + second * times.MICROS, i))
        fold(straight_user, user_event(kind, NOW + second * times.MICROS, i))
    assert (item.pack(), user.pack()) == (straight_item.pack(), straight_user.pack())


def test_an_event_older_than_the_ring_counts_in_the_totals_only() -> None:
    state = ItemState()
    state.shown(NOW)
    state.shown(NOW - TILES * TILE_US)
    state.clicked(NOW - TILES * TILE_US)
    assert (state.impressions, state.clicks) == (2, 1)
    assert list(state.tiles) == [1, 0] + [0] * (2 * TILES - 2)


def test_the_oldest_tile_still_counts() -> None:
    state = ItemState()
    state.shown(NOW)
    state.shown(NOW - (TILES - 1) * TILE_US)
    assert list(state.tiles) == [1, 0] + [0] * (2 * TILES - 4) + [1, 0]


def test_tiles_move_with_event_time_and_fall_out_at_the_end() -> None:
    state = ItemState()
    state.shown(NOW)
    state.clicked(NOW + 3 * TILE_US)
    assert list(state.tiles[:8]) == [0, 1, 0, 0, 0, 0, 1, 0]
    state.shown(NOW + 100 * TILE_US)
    assert list(state.tiles) == [1, 0] + [0] * (2 * TILES - 2)


def test_only_clicks_count_as_clicks() -> None:
    item, user = ItemState(), UserState()
    fold(item, item_event("hide", NOW))
    fold(user, user_event("hide", NOW))
    assert (item.clicks, user.clicks, user.last_clicks, user.last_us) == (0, 0, [], NOW)


def test_last_clicks_are_the_newest_ten_newest_first_with_ties_by_event_hash() -> None:
    state = UserState()
    for second in random.Random(1).sample(range(30), 30):
        state.clicked(NOW + second, second, 100 + second, 2)
    assert last_clicked_items(state.pack()) == [129 - i for i in range(LAST_CLICKS)]
    tied = UserState()
    tied.clicked(NOW, 1, 11, 0)
    tied.clicked(NOW, 9, 19, 0)
    tied.clicked(NOW, 5, 15, 0)
    assert last_clicked_items(tied.pack()) == [19, 15, 11]


def test_category_counts_saturate_instead_of_overflowing() -> None:
    state = UserState()
    for _ in range(MAX_U16 // 500 + 2):
        state.shown(NOW, [4] * 500)
    assert state.categories[4] == MAX_U16
    assert UserState.unpack(state.pack()).impressions == (MAX_U16 // 500 + 2) * 500


def test_a_category_beyond_the_table_is_unknown() -> None:
    assert ItemState(category=64).category == 0
    state = UserState()
    state.shown(NOW, [64, 63])
    assert (state.categories[0], state.categories[63]) == (1, 1)


def test_the_catalogue_overwrites() -> None:
    state = ItemState(3, NOW)
    event = FeatureEvent()
    event.item_listed.item_id, event.item_listed.category = 5, 9
    fold(state, event)
    assert (state.category, state.created_us) == (9, 0)


@pytest.mark.parametrize("value", [b"", b"\x01" * 10, b"\x09" + bytes(119)])
def test_a_value_of_another_shape_or_version_is_refused(value: bytes) -> None:
    for state_type in (ItemState, UserState):
        with pytest.raises(MalformedRecord):
            state_type.unpack(value)
    assert last_clicked_items(value) == last_clicked_items(None) == []


def test_an_event_of_the_other_entity_is_refused() -> None:
    with pytest.raises(MalformedRecord):
        fold(UserState(), item_event("shown", NOW))
    with pytest.raises(MalformedRecord):
        fold(ItemState(), user_event("shown", NOW))
