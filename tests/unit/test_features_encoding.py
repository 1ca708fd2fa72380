"""The encoding: what a request reads, defaults, categories, and the same bits out of the log."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import pytest

from services.contract.errors import InvalidInput, NotFound
from services.contract.feature_sets import FEATURE_SETS, feature_set
from services.contract.feature_view import FeatureView
from services.contract.features import described, encode, needed
from services.contract.features_asof import encode_asof
from services.contract.view_events import Event
from services.contract.view_log import Labels, log_of
from services.contract.view_registry import FeatureSet
from tests.feature_kit import FEATURES, clicked, listed, shown, states_of

MINUTE_US = 60_000_000
NOW = 29_000_000 * MINUTE_US
NONE = np.zeros(0, np.uint64)
USERS, ITEMS = 5, 12


def column(matrix: np.ndarray, name: str) -> np.ndarray:
    """A column of a row of request columns, or of rows of candidate columns."""
    names = [
        one.name for one in (FEATURES.request_columns if matrix.ndim == 1 else FEATURES.candidate_columns)
    ]
    return matrix[..., names.index(name)]


def story(seed: int, events: int = 400) -> list[Event]:
    """A catalogue, and users who see and click; time rises, with ties."""
    rng = random.Random(seed)
    # The last item is not in the catalogue.
    category = [0 if item == ITEMS - 1 else 1 + item % 3 for item in range(ITEMS)]
    made = [listed(item, category[item], NOW - item * 300 * MINUTE_US, item) for item in range(ITEMS - 1)]
    at_us = NOW - 200 * MINUTE_US
    for sequence in range(events):
        at_us += rng.choice([0, 1, 7_000_000, MINUTE_US])
        user, item = rng.randrange(USERS), rng.randrange(ITEMS)
        make = clicked if rng.random() < 0.3 else shown
        made.append(make(user, item, category[item], at_us, sequence))
    return made


def test_what_is_not_known_has_the_declared_defaults() -> None:
    found = encode(FEATURES, {}, 7, np.array([3, 9], np.uint64), NOW)
    assert (found.items == FEATURES.item_defaults).all()
    stored = [one.view.kind != "instant" for one in FEATURES.request_columns]
    assert (found.user[stored] == FEATURES.user_defaults[stored]).all()
    assert column(found.user, "time_day_sin") ** 2 + column(found.user, "time_day_cos") ** 2 == pytest.approx(
        1
    )
    assert {name: mask.tolist() for name, mask in found.missing.items()} == {
        "user_activity": [1],
        "user_history": [1],
        "user_clicks": [1],
        "time": [0],
        "item_catalogue": [1, 1],
        "item_activity": [1, 1],
        "item_popularity": [1, 1],
        "user_category": [1, 1],
    }


def test_a_missing_state_leaves_the_other_views_alone() -> None:
    states, ids = states_of(story(1)), np.arange(3, dtype=np.uint64)
    whole = encode(FEATURES, states, 1, ids, NOW)
    gone = {key: state for key, state in states.items() if key[0] != "item_activity"}
    spoiled = {key: b"short" if key[0] == "item_activity" else state for key, state in states.items()}
    places = [one.view.name == "item_activity" for one in FEATURES.candidate_columns]
    for less in (gone, spoiled):
        found = encode(FEATURES, less, 1, ids, NOW)
        assert found.missing["item_activity"].tolist() == [1, 1, 1]
        assert np.array_equal(found.user, whole.user)
        assert (found.items[:, places] == FEATURES.item_defaults[places]).all()
        assert np.array_equal(found.items[:, ~np.array(places)], whole.items[:, ~np.array(places)])
        assert not np.array_equal(found.items, whole.items)


def test_a_request_without_candidates_has_its_own_columns() -> None:
    states = states_of(story(2))
    found = encode(FEATURES, states, 1, NONE, NOW)
    assert found.items.shape == (0, FEATURES.item_width)
    assert found.missing["item_catalogue"].shape == (0,) and found.missing["user_clicks"].tolist() == [0]
    assert np.array_equal(found.user, encode(FEATURES, states, 1, np.arange(4, dtype=np.uint64), NOW).user)
    assert column(found.user, "user_clicks_any") == 1


def test_the_category_of_a_candidate_is_what_the_catalogue_says_of_it() -> None:
    events = [listed(1, 3, NOW - MINUTE_US, 1), listed(2, 4, NOW - MINUTE_US, 2)]
    events += [shown(7, 50 + k, 3, NOW - 100 + k, k) for k in range(30)]
    events += [clicked(7, 50 + k, 3, NOW - 60 + k, k) for k in range(9)]
    found = encode(FEATURES, states_of(events), 7, np.array([1, 2, 99], np.uint64), NOW).items
    assert column(found, "item_catalogue_category").tolist() == [3, 4, 0]
    assert column(found, "user_category_ctr")[0] > 0.4 and not column(found, "user_category_ctr")[1:].any()
    assert column(found, "user_clicks_category_share").tolist() == [1, 0, 0]
    assert column(found, "user_clicks_same_category").tolist() == [1, 0, 0]
    # No item 1 was clicked, but some in its category; an item clicked is found by its id.
    assert column(found, "user_clicks_clicked_before").tolist() == [0, 0, 0]
    again = encode(FEATURES, states_of(events), 7, np.array([58], np.uint64), NOW).items
    assert column(again, "user_clicks_clicked_before").tolist() == [1]


def test_what_happens_at_the_moment_of_the_request_is_not_seen() -> None:
    events = [listed(1, 3, NOW - MINUTE_US, 1), clicked(7, 1, 3, NOW, 1)]
    states, ids = states_of(events), np.array([1], np.uint64)
    for at_us, seen in ((NOW, 0), (NOW + 1, 1)):
        found = encode(FEATURES, states, 7, ids, at_us)
        assert column(found.user, "user_clicks_any") == seen
        assert column(found.items, "user_clicks_clicked_before").tolist() == [seen]
        assert (column(found.items, "item_activity_clicks") > 0).tolist() == [bool(seen)]


class Watched(Mapping[tuple[str, bytes], bytes]):
    """States that remember what was asked for."""

    def __init__(self, states: dict[tuple[str, bytes], bytes]) -> None:
        self._states = states
        self.asked: set[tuple[str, bytes]] = set()

    def __getitem__(self, key: tuple[str, bytes]) -> bytes:
        self.asked.add(key)
        return self._states[key]

    def __iter__(self):
        return iter(self._states)

    def __len__(self) -> int:
        return len(self._states)


def test_needed_names_each_state_that_is_read_once() -> None:
    states = Watched(states_of(story(3)))
    ids = np.array([2, 5, 2**64 - 1, 8], np.uint64)
    category = encode(FEATURES, states, 4, ids, NOW).items[:, FEATURES.category_column].astype(np.int64)
    assert category.tolist() == [3, 3, 0, 3]
    wanted = [(view.name, entity) for view, entity in needed(FEATURES, 4, ids, category)]
    assert len(wanted) == len(set(wanted)) == 3 + 3 * 4 + 2
    assert set(wanted) == {key for key in states.asked if key[0] != "time"}
    assert ("user_category", (4).to_bytes(8, "little") + (3).to_bytes(8, "little")) in wanted


def streaming(features: FeatureSet) -> FeatureSet:
    """Without views that are made by a job: their states are not the fold's."""
    return FeatureSet(view for view in features.views if view.kind != "batch")


@pytest.mark.parametrize("name", FEATURE_SETS)
@pytest.mark.parametrize("seed", [4, 5, 6])
def test_requests_encoded_out_of_the_log_are_those_encoded_from_states_of_what_was_before(
    name: str, seed: int
) -> None:
    features, events, rng = streaming(feature_set(name)), story(seed), random.Random(seed)
    times = sorted({event.occurred_us for event in events if event.kind != "listed"})
    asked = [(rng.choice(times) + rng.choice([0, 1, -1]), rng.randrange(USERS + 1)) for _ in range(25)]
    lists = [rng.sample(range(ITEMS + 1), rng.randrange(5)) for _ in asked]
    owner = np.repeat(np.arange(len(asked)), [len(one) for one in lists])
    ids = np.array([item for one in lists for item in one], np.uint64)
    users, items = encode_asof(
        features,
        log_of(events, [event.occurred_us for event in events]),
        Labels(
            np.array([at_us for at_us, _ in asked]), {"user_id": np.array([u for _, u in asked], np.uint64)}
        ),
        owner,
        ids,
    )
    for number, (at_us, user) in enumerate(asked):
        states = states_of((event for event in events if event.occurred_us < at_us), features)
        alone = encode(features, states, user, ids[owner == number], at_us)
        assert alone.user.tobytes() == users[number].tobytes()
        assert alone.items.tobytes() == items[owner == number].tobytes()
    assert (items[:, features.not_batch] != features.item_defaults[features.not_batch]).mean() > 0.3


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_every_value_is_finite_and_only_the_category_leaves_the_range(name: str) -> None:
    features = feature_set(name)
    found = encode(features, states_of(story(7), features), 2, np.arange(ITEMS, dtype=np.uint64), NOW)
    rest = np.delete(found.items, features.category_column, axis=1)
    for values in (found.user, rest):
        assert np.isfinite(values).all() and (np.abs(values) <= 3).all()
    assert set(found.items[:, features.category_column].tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_columns_are_described_in_their_order(name: str) -> None:
    features = feature_set(name)
    of_request, of_candidate = described(features)
    assert len(of_request) == features.user_width and len(of_candidate) == features.item_width
    assert [one.name for one in of_request] == [one.name for one in features.request_columns]
    assert [one.default for one in of_candidate] == features.item_defaults.tolist()
    assert {one.entity for one in of_request} == {"user"}
    assert {one.entity for one in of_candidate} == {"item", "cross"}
    assert all(one.description for one in (*of_request, *of_candidate))
    kinds = {one.name: one.kind for one in (*of_request, *of_candidate)}
    assert kinds["time_day_sin"] == "instant" and kinds["user_activity_ctr"] == "streaming"
    assert [of_candidate[index].kind for index in features.batch] == ["batch", "batch"]
    assert of_candidate[features.category_column].name == "item_catalogue_category"
    assert sorted(features.batch + features.not_batch) == list(range(features.item_width))


def test_a_set_without_a_catalogue_has_no_category() -> None:
    views: list[FeatureView] = [view for view in FEATURES.views if view.name != "item_catalogue"]
    with pytest.raises(InvalidInput, match=r"views.*user_activity.*with item_catalogue, which says category"):
        _ = FeatureSet(views).category_column


def test_an_unknown_set_is_named_with_those_that_there_are() -> None:
    with pytest.raises(NotFound, match=r"no feature set 'wrold'; there are world, movielens"):
        feature_set("wrold")
