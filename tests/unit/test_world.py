"""The simulated world is reproducible, has the click rates it promises, and moves as it says."""

import numpy as np
import pytest

from loadgen.exposures import MEMORY, Exposures
from loadgen.scenarios import SCENARIOS, scenario
from loadgen.world import World, click_delays_s, examination
from loadgen.world_config import WorldConfig
from services.contract.errors import InvalidInput

SMALL = WorldConfig(items=20_000, users=2_000)


@pytest.fixture(scope="module")
def world() -> World:
    return World(SMALL)


def draws(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, SMALL.users, n), rng.integers(0, SMALL.items, n), rng.uniform(0, 120, n)


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


def test_the_same_seed_is_the_same_world_however_it_was_grown(world):
    grown = World(SMALL)
    grown.items.ensure(60_000)
    grown.users.ensure(9_000)
    users, items, times = draws(500)
    np.testing.assert_array_equal(world.true_p(users, items, times), grown.true_p(users, items, times))
    np.testing.assert_array_equal(world.items.ids, grown.items.ids[: len(world.items)])


def test_another_seed_is_another_world(world):
    other = World(WorldConfig(seed=8, items=20_000, users=2_000))
    assert not np.array_equal(world.true_p(*draws(50)), other.true_p(*draws(50)))


def test_a_random_item_is_clicked_by_about_three_in_a_hundred(world):
    assert 0.02 < world.true_p(*draws(50_000)).mean() < 0.045


def test_the_best_ten_of_a_thousand_are_worth_choosing(world):
    rng = np.random.default_rng(1)
    best = []
    for _ in range(100):
        candidates = rng.choice(SMALL.items, 1_000, replace=False)
        p = world.true_p(rng.integers(0, SMALL.users, 1), candidates, np.array([30.0]))
        best.append(np.sort(p)[-10:].mean())
    assert 0.2 < np.mean(best) < 0.5


def test_one_user_against_many_items_is_the_same_as_one_by_one(world):
    items = np.arange(20)
    together = world.true_p(np.array([3]), items, np.array([7.0]))
    single = [world.true_p(np.array([3]), items[i : i + 1], np.array([7.0]))[0] for i in range(20)]
    np.testing.assert_allclose(together, single, rtol=1e-6)


def test_fashion_moves_within_a_minute_and_is_shared_by_a_category(world):
    categories = np.arange(1, SMALL.categories + 1, dtype=np.uint8)
    before, after = (world.trend(categories, np.array([t])) for t in (0.0, 60.0))
    assert np.abs(after - before).mean() > 0.3
    # Slow enough to be learned from the clicks of seconds.
    assert np.abs(world.trend(categories, np.array([5.0])) - before).max() < 0.3


def test_nothing_moves_in_a_still_world_but_novelty_wears_off():
    still = World(SMALL, scenario("still"))
    old = np.arange(100)
    users = np.arange(100)
    before, after = (still.true_p(users, old, np.array([t])) for t in (0.0, 300.0))
    np.testing.assert_allclose(before, after, rtol=1e-4)
    born = np.arange(SMALL.items - 20, SMALL.items)
    fresh, stale = (still.true_p(users[:20], born, np.array([t])) for t in (0.0, 600.0))
    assert (fresh > stale).all()


def test_newborn_items_are_better_on_average_than_old_ones(world):
    old = world.items.quality[: SMALL.items_before_day0].mean()
    newborn = world.items.quality[SMALL.items_before_day0 : SMALL.items].mean()
    assert newborn - old > 0.2


def test_what_was_seen_often_is_clicked_less(world):
    users, items, times = draws(100)
    p = [world.true_p(users, items, times, seen).mean() for seen in (0, 1, 4, 50)]
    assert p[0] > p[1] > p[2] == p[3]


def test_items_are_born_in_order_and_at_the_stated_rate(world):
    assert (np.diff(world.items.born_s) >= 0).all()
    assert world.items.born_until(0.0) == SMALL.items
    assert abs(world.items.born_until(100.0) - SMALL.items - 100 * SMALL.births_per_s) <= 1
    first_session = SMALL.day0_start_s
    in_day0 = world.items.born_s[SMALL.items_before_day0 : SMALL.items]
    assert first_session <= in_day0[0] and in_day0[-1] <= 0


def test_births_of_day_0_happen_inside_its_sessions(world):
    born = world.items.born_s[SMALL.items_before_day0 : SMALL.items]
    start = SMALL.session_start_s(np.arange(SMALL.sessions))
    session = np.searchsorted(start, born, side="right") - 1
    assert (born <= start[session] + SMALL.session_s).all()
    assert (np.bincount(session) == SMALL.births_per_session).all()


def test_activity_is_zipf_and_newcomers_come_after_their_birth(world):
    rng = np.random.default_rng(2)
    t = np.full(20_000, 40.0)
    chosen = world.users.choose(t, rng.random(len(t)), rng.random(len(t)))
    counts = np.sort(np.bincount(chosen[chosen < SMALL.users]))[::-1]
    assert counts[:100].sum() > 4 * counts[1000:1100].sum()
    newcomers = chosen[chosen >= SMALL.users]
    assert 0.03 < len(newcomers) / len(chosen) < 0.07
    assert newcomers.max() < world.users.born_until(40.0)
    early = world.users.choose(np.zeros(1_000), rng.random(1_000), rng.random(1_000))
    assert early.max() < SMALL.users


def test_lower_positions_are_looked_at_less():
    seen = examination(np.arange(10))
    assert seen[0] == 1 and (np.diff(seen) < 0).all() and seen[9] > 0.3


def test_click_delays_have_the_stated_mean_and_stay_inside_the_window():
    delays = click_delays_s(np.random.default_rng(3).random(100_000).astype(np.float32), 20.0)
    assert 1.9 < delays.mean() < 2.1
    assert delays.max() <= 15.0
    assert click_delays_s(np.array([0.999999], np.float32), 4.0)[0] == 3.0


def test_a_shock_shifts_the_logit_of_what_it_touches_while_it_lasts():
    shocked = World(SMALL, scenario("celebrity"), start_s=100.0)
    shock = SCENARIOS["celebrity"].shocks[0]
    users, items = np.zeros(2, np.int64), np.array([shock.item, shock.item + 1])
    plain = World(SMALL)
    for t, moved in ((100.0, False), (100.0 + shock.from_s, True)):
        p, q = (w.true_p(users, items, np.array([t])) for w in (shocked, plain))
        shift = logit(p) - logit(q)
        assert shift[0] == pytest.approx(shock.logit_shift if moved else 0.0, abs=1e-3)
        assert shift[1] == pytest.approx(0.0, abs=1e-3)


def test_an_unknown_scenario_is_named_with_the_known_ones():
    with pytest.raises(InvalidInput, match=r"scenario=nosuch: one of drift, still"):
        scenario("nosuch")


def test_every_contradiction_of_a_config_is_named_at_once():
    with pytest.raises(InvalidInput) as caught:
        WorldConfig(items=10, categories=100, session_s=90_000)
    assert {bad.field for bad in caught.value.violations} >= {"items", "categories", "session_s"}


def test_more_births_than_items_are_refused():
    with pytest.raises(InvalidInput, match="births_per_s"):
        WorldConfig(items=1_000, births_per_s=5.0)


def test_exposures_forget_what_was_shown_long_ago():
    seen = Exposures(2)
    user, items = np.array([5]), np.arange(10)[None, :]
    assert seen.count(user, items).sum() == 0
    seen.add(user, items)
    seen.add(user, items[:, ::-1])
    assert (seen.count(user, items) == 2).all()
    assert seen.count(np.array([1]), items).sum() == 0
    for start in range(100, 100 + MEMORY, 10):
        seen.add(user, np.arange(start, start + 10)[None, :])
    assert seen.count(user, items).sum() == 0
