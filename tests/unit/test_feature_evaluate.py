"""The feature server's own way to the columns gives the reference's bits, whatever was kept from before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from view_states_kit import States, event, folded

from services.contract import features
from services.contract.errors import InvalidInput
from services.contract.feature_sets import FEATURE_SETS
from services.contract.feature_view import FeatureView
from services.contract.view_aggregates import Count, Feature
from services.contract.view_events import Event, Select
from services.contract.view_plan import NONE_US
from services.contract.view_registry import FeatureSet
from services.contract.views_world import WORLD_VIEWS
from services.feature.evaluate import States as Read
from services.feature.evaluate import categories, category_entities, evaluate
from services.feature.item_table import ItemTable
from services.feature.layout import Layout

MINUTE_US = 60_000_000
BASE_US = 29_000_000 * MINUTE_US
USERS, ITEMS = (1, 2**64 - 1), (1, 2, 3, 2**63 + 5)
CATEGORY_OF = {1: 3, 2: 3, 3: 70_000, 2**63 + 5: 1}

# On the edges of hops (1 and 10 minutes), beside them, and far apart.
TIMES = st.builds(
    lambda hop, inside: BASE_US + hop * MINUTE_US + inside,
    st.sampled_from((0, 1, 2, 9, 10, 11, 20, 60, 125, 400)),
    st.sampled_from((0, 1, -1, 30_000_000)),
)


@st.composite
def happenings(draw: st.DrawFn) -> list[tuple[str, int, int, int]]:
    """(kind, time, user, item) in any order."""
    kinds = st.sampled_from(("shown", "shown", "acted", "listed"))
    one = st.tuples(kinds, TIMES, st.sampled_from(USERS), st.sampled_from(ITEMS))
    return draw(st.lists(one, min_size=1, max_size=12))


class Server:
    """A table over states that change, as Redis tells it."""

    def __init__(self, feature_set: FeatureSet) -> None:
        self.feature_set = feature_set
        self.layout = Layout(feature_set)
        self.table = ItemTable(self.layout, 10_000, 10.0)
        self.states: States = {}
        self._sequence = 0

    def happen(self, happenings: list[tuple[str, int, int, int]]) -> None:
        events: list[Event] = []
        for kind, at_us, user, item in happenings:
            self._sequence += 1
            events.append(event(kind, at_us, user, item, CATEGORY_OF[item], sequence=self._sequence))
        before, self.states = self.states, folded(self.feature_set, events, self.states)
        item_views = {placed.view.name for placed in self.layout.items}
        written = {
            int.from_bytes(entity, "little")
            for (name, entity), value in self.states.items()
            if name in item_views and before.get((name, entity)) != value
        }
        self.table.drop(sorted(written))

    def columns(self, user_id: int, ids: list[int], at_us: int) -> tuple[bytes, bytes, bool]:
        """What the server would answer: user, items, missing user."""
        item_ids = np.array(ids, np.uint64)
        places, unknown = self.table.find(item_ids, 0.0)
        if len(unknown):
            wanted = item_ids[unknown]
            values = [
                [self.states.get((placed.view.name, one.tobytes())) for one in wanted]
                for placed in self.layout.items
            ]
            self.table.put(wanted.tolist(), values, 0.0)
            places, unknown = self.table.find(item_ids, 0.0)
            assert not len(unknown)
        items = self.table.columns(places, at_us)
        found = categories(self.layout, items)
        width = {placed.view.name: 8 * len(placed.view.key) for placed in self.layout.categories}
        by_category = []
        for placed in self.layout.categories:
            packed, size = category_entities(placed, user_id, found), width[placed.view.name]
            keys = [packed[at : at + size] for at in range(0, len(packed), size)]
            by_category.append([self.states.get((placed.view.name, key)) for key in keys])
        user = user_id.to_bytes(8, "little")
        users = [self.states.get((placed.view.name, user)) for placed in self.layout.users]
        read = Read(users, by_category)
        made = evaluate(self.layout, read, items, found, item_ids=item_ids, at_us=at_us)
        return made.user.tobytes(), made.items.tobytes(), made.missing_user


@pytest.mark.parametrize("name", sorted(FEATURE_SETS))
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_servers_columns_are_the_references_bits(name: str, data: st.DataObject) -> None:
    server = Server(FEATURE_SETS[name])
    for _ in range(data.draw(st.integers(1, 4))):
        server.happen(data.draw(happenings()))
        for _ in range(data.draw(st.integers(1, 3))):
            at_us, user = data.draw(TIMES), data.draw(st.sampled_from(USERS))
            ids = data.draw(st.lists(st.sampled_from((*ITEMS, 99)), max_size=6))
            user_row, rows, missing_user = server.columns(user, ids, at_us)
            wanted = features.encode(server.feature_set, server.states, user, np.array(ids, np.uint64), at_us)
            assert user_row == wanted.user.tobytes()
            assert rows == wanted.items.tobytes()
            user_views = [placed.view.name for placed in server.layout.users]
            assert missing_user == all(wanted.missing[view][0] for view in user_views)


def test_columns_are_read_once_in_a_hop_and_moments_move_on() -> None:
    server = Server(FEATURE_SETS["world"])
    server.happen([("listed", BASE_US, 1, 1), ("shown", BASE_US + 5, 1, 1)])
    age = server.feature_set.candidate_columns.index(server.feature_set.column("item_catalogue_age"))
    ages = []
    for second in (1, 2, 59):
        _, rows, _ = server.columns(1, [1, 1], BASE_US + second * 1_000_000)
        ages.append(np.frombuffer(rows, "<f4").reshape(2, -1)[0, age])
    assert ages == sorted(ages) and len(set(ages)) == 3
    views = len(server.layout.items)
    assert server.table.read_anew == views
    server.columns(1, [1], BASE_US + MINUTE_US)
    # Popularity has hops of ten minutes.
    assert server.table.read_anew == 2 * views - 1


def test_a_state_that_has_overtaken_the_request_is_never_taken_from_the_matrix() -> None:
    server = Server(FEATURE_SETS["world"])
    server.happen([("shown", BASE_US + 30, 1, 1)])
    server.columns(1, [1], BASE_US + 40)
    for at_us in (BASE_US + 10, BASE_US + 40, BASE_US + 10):
        _, rows, _ = server.columns(1, [1], at_us)
        assert (
            rows
            == features.encode(
                server.feature_set, server.states, 1, np.array([1], np.uint64), at_us
            ).items.tobytes()
        )


def test_a_key_that_no_request_has_is_refused_at_the_start() -> None:
    view = FeatureView(
        "pairs", 1, ("user_id", "item_id"), ("shown",), (Feature("n", Count(Select("shown"))),), MINUTE_US
    )
    with pytest.raises(InvalidInput) as caught:
        Layout(FeatureSet((*WORLD_VIEWS, view)))
    assert [(v.field, v.value) for v in caught.value.violations] == [("pairs.key", "user_id + item_id")]


# -- what is kept ----------------------------------------------------------------------------------------


def table(capacity: int) -> ItemTable:
    return ItemTable(Layout(FEATURE_SETS["world"]), capacity, 10.0)


def put(kept: ItemTable, ids: list[int], now_s: float = 0.0) -> None:
    views = len(Layout(FEATURE_SETS["world"]).items)
    kept.put(ids, [[None] * len(ids)] * views, now_s)


def known(kept: ItemTable, ids: list[int], now_s: float = 0.0) -> list[bool]:
    _, unknown = kept.find(np.array(ids, np.uint64), now_s)
    return [position not in unknown for position in range(len(ids))]


def test_what_was_put_is_found_until_it_is_written_or_too_old() -> None:
    kept = table(8)
    assert known(kept, [1, 2]) == [False, False]
    put(kept, [1, 2**64 - 1])
    put(kept, [3], 5.0)
    assert known(kept, [2**64 - 1, 5, 1, 1]) == [True, False, True, True]
    assert kept.drop([1, 9]) == 1
    assert known(kept, [1, 3]) == [False, True]
    assert known(kept, [2**64 - 1, 3], 10.5) == [False, True]
    kept.clear()
    assert known(kept, [3]) == [False] and len(kept) == 0


def test_the_first_to_come_is_the_first_to_leave_and_a_dropped_place_is_taken_first() -> None:
    kept = table(2)
    put(kept, [1, 2])
    put(kept, [3])
    assert (known(kept, [1, 2, 3]), kept.evicted) == ([False, True, True], 1)
    kept.drop([2])
    put(kept, [4])
    assert (known(kept, [2, 3, 4]), kept.evicted) == ([False, True, True], 1)


@given(st.lists(st.tuples(st.sampled_from(("put", "drop", "clear")), st.integers(0, 30)), max_size=60))
def test_it_never_holds_more_than_it_may_and_only_what_was_put(steps: list[tuple[str, int]]) -> None:
    kept, there = table(5), set()
    for step, item in steps:
        if step == "put":
            put(kept, [item])
            there.add(item)
        elif step == "drop":
            kept.drop([item])
            there.discard(item)
        else:
            kept.clear()
            there.clear()
        held = {one for one in range(31) if known(kept, [one])[0]}
        assert held <= there and len(held) == len(kept) <= 5


def test_an_item_without_states_has_the_defaults_and_no_age() -> None:
    kept = table(4)
    put(kept, [7])
    places, _ = kept.find(np.array([7], np.uint64), 0.0)
    items = kept.columns(places, BASE_US)
    assert items.rows.tobytes() == FEATURE_SETS["world"].item_defaults.tobytes()
    assert items.missing.all() and items.newest_us.tolist() == [NONE_US]
