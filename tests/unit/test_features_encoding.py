"""The encoding: defaults, windows, what a request may see, ranges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract import features
from services.contract.feature_fold import ItemState, UserState
from services.contract.feature_layout import ITEM_DTYPE, ITEM_VERSION, TILE_US, USER_DTYPE, USER_VERSION

NOW = 29_000_000 * TILE_US
USER = {column.name: index for index, column in enumerate(features.USER_COLUMNS)}
ITEM = {column.name: index for index, column in enumerate(features.ITEM_COLUMNS)}


def item_column(name: str, state: ItemState, at_us: int, user: UserState | None = None, **more) -> float:
    _, items, _ = features.encode(user.pack() if user else None, [state.pack()], at_us, **more)
    return float(items[0, ITEM[name]])


def user_column(name: str, state: UserState, at_us: int) -> float:
    return float(features.encode(state.pack(), [], at_us)[0][USER[name]])


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_missing_entities_have_the_declared_defaults() -> None:
    user, items, missing = features.encode(None, [None, b"short", b"\x09" + bytes(119)], NOW)
    assert list(missing) == [1, 1, 1]
    for row in items:
        assert list(row) == [column.default for column in features.ITEM_COLUMNS]
    stored = [c.kind != "instant" for c in features.USER_COLUMNS]
    assert list(user[stored]) == [c.default for c in features.USER_COLUMNS if c.kind != "instant"]
    assert user[USER["hour_sin"]] ** 2 + user[USER["hour_cos"]] ** 2 == pytest.approx(1)


def test_shapes_for_no_items() -> None:
    user, items, missing = features.encode(None, [], NOW)
    assert user.shape == (16,) and items.shape == (0, 16) and missing.shape == (0,)


def test_the_rate_is_the_smoothed_logit_against_the_prior() -> None:
    state = ItemState()
    for i in range(20):
        state.shown(NOW + i)
    for i in range(10):
        state.clicked(NOW + i)
    wanted = logit((10 + 8 * 0.1) / 28) - logit(0.1)
    assert item_column("item_rate", state, NOW + 20) == pytest.approx(wanted, rel=1e-5)
    assert item_column("item_rate", ItemState(), NOW) == pytest.approx(0, abs=1e-6)


def test_the_prior_follows_what_the_run_has_seen() -> None:
    assert features.prior_rate(0, 0) == pytest.approx(0.1)
    assert features.prior_rate(100_000, 55_000) == pytest.approx(0.55, abs=0.001)
    assert 0 < features.prior_rate(0, 10**6) < 1


def test_windows_end_after_their_length_and_one_tile_at_most() -> None:
    state = ItemState()
    state.shown(NOW)
    seen = [item_column("item_log_impressions_1m", state, NOW + k * TILE_US) > 0 for k in range(13)]
    assert seen == [True, True] + [False] * 11
    seen = [item_column("item_log_impressions_10m", state, NOW + k * TILE_US) > 0 for k in range(13)]
    assert seen == [True] * 11 + [False] * 2


def test_tiles_after_the_request_are_not_seen() -> None:
    state = ItemState()
    state.shown(NOW)
    early = item_column("item_log_impressions", state, NOW + 1)
    state.shown(NOW + TILE_US)
    state.clicked(NOW + 2 * TILE_US)
    assert item_column("item_log_impressions", state, NOW + 1) == early
    assert item_column("item_log_impressions_1m", state, NOW + 1) > 0
    assert item_column("item_log_clicks", state, NOW + 1) == 0
    assert item_column("item_log_clicks", state, NOW + 2 * TILE_US) > 0


def test_clicks_at_or_after_the_request_are_not_among_the_last_clicks() -> None:
    user = UserState()
    user.clicked(NOW, 1, 77, 3)
    item = ItemState(category=3)
    ids = np.array([77], np.uint64)
    for name in ("cross_clicked_before", "cross_same_as_last_click", "cross_click_share"):
        assert item_column(name, item, NOW, user, item_ids=ids) == 0
        assert item_column(name, item, NOW + 1, user, item_ids=ids) == 1
    assert user_column("user_has_recent_click", user, NOW) == 0
    assert user_column("user_has_recent_click", user, NOW + 1) == 1


def test_cross_columns_know_the_users_categories() -> None:
    user = UserState()
    for i in range(30):
        user.shown(NOW + i, [3, 4])
    for i in range(9):
        user.clicked(NOW + i, i, 50 + i, 3)
    user.clicked(NOW + 20, 20, 99, 4)
    liked, disliked, unseen = (
        [
            item_column(name, ItemState(category=c), NOW + 100, user)
            for name in ("cross_category_rate", "cross_click_share", "cross_same_as_last_click")
        ]
        for c in (3, 4, 5)
    )
    assert liked[0] > 0.4
    assert disliked[0] < 0
    assert unseen[0] == pytest.approx(0, abs=1e-6)
    assert [liked[1], disliked[1], unseen[1]] == pytest.approx([0.9, 0.1, 0])
    assert [liked[2], disliked[2], unseen[2]] == [0, 1, 0]


def test_age_is_known_only_of_items_with_a_birth() -> None:
    assert item_column("item_log_age", ItemState(), NOW) == 0
    assert item_column("item_is_new", ItemState(), NOW) == 0
    assert item_column("item_is_new", ItemState(created_us=NOW - TILE_US), NOW) == 1
    assert item_column("item_is_new", ItemState(created_us=NOW - 11 * TILE_US), NOW) == 0
    assert item_column("item_log_age", ItemState(created_us=NOW - 11 * TILE_US), NOW) > 1


def random_records(rng: np.random.Generator, dtype: np.dtype, rows: int, version: int) -> np.ndarray:
    """Any bytes at all with the right version."""
    records = np.frombuffer(rng.bytes(rows * dtype.itemsize), dtype).copy()
    records["version"] = version
    records["tiles"] >>= 4
    return records


@given(st.integers(0, 2**32), st.integers(1, 2**52))
def test_every_value_is_finite_and_in_range_whatever_stands_in_redis(seed: int, at_us: int) -> None:
    rng = np.random.default_rng(seed)
    users = random_records(rng, USER_DTYPE, 3, USER_VERSION)
    items = random_records(rng, ITEM_DTYPE, 12, ITEM_VERSION)
    user, item = features.encode_records(
        users,
        items,
        np.arange(12, dtype=np.uint64),
        owner=np.repeat(np.arange(3), 4),
        at_us=np.full(3, at_us),
        prior=0.3,
    )
    for matrix in (user, item[:, 1:]):
        assert np.isfinite(matrix).all() and (np.abs(matrix) <= features.MAX_VALUE).all()
    assert set(item[:, 0]) <= set(range(64))


def test_many_users_at_once_are_encoded_as_each_alone() -> None:
    rng = np.random.default_rng(5)
    users, items, owner, ats = [], [], [], []
    for number in range(6):
        user = UserState()
        at_us = NOW + number * TILE_US // 2
        for i in range(int(rng.integers(0, 15))):
            user.shown(at_us - i * 10_000_000, [int(c) for c in rng.integers(0, 8, 5)])
            user.clicked(at_us - i * 9_000_000, i, int(rng.integers(0, 9)), int(rng.integers(0, 8)))
        users.append(user.pack() if number else None)
        ats.append(at_us)
        for _ in range(4):
            item = ItemState(int(rng.integers(0, 8)), at_us - int(rng.integers(0, 10**9)))
            for i in range(int(rng.integers(0, 20))):
                item.shown(at_us - i * 7_000_000)
            items.append(item.pack() if rng.random() < 0.8 else None)
            owner.append(number)
    ids = np.arange(len(items), dtype=np.uint64) % 9
    together = features.encode_records(
        np.concatenate([features.user_records(value) for value in users]),
        features.item_records(items),
        ids,
        owner=np.array(owner),
        at_us=np.array(ats),
        prior=0.2,
    )
    for number in range(6):
        rows = slice(4 * number, 4 * number + 4)
        user, matrix, _ = features.encode(users[number], items[rows], ats[number], 0.2, ids[rows])
        assert np.array_equal(together[0][number], user)
        assert np.array_equal(together[1][rows], matrix)


def test_columns_are_named_once_and_described() -> None:
    names = [column.name for column in (*features.USER_COLUMNS, *features.ITEM_COLUMNS)]
    assert len(set(names)) == 32
    assert all(c.kind in ("batch", "streaming", "instant") and c.description for c in features.ITEM_COLUMNS)
    assert features.ITEM_COLUMNS[features.CATEGORY_COLUMN].name == "category"
