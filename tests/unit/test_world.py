"""The simulated world is reproducible, has the click rates it promises, and moves as it says."""

import numpy as np
import pytest

from loadgen.exposures import MEMORY, Exposures
from loadgen.scenarios import SCENARIOS, scenario
from loadgen.timeline import Timeline, schedule
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
    still = World(SMALL, drift=0.0)
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
    assert world.born_until(0.0) == SMALL.items
    assert abs(world.born_until(100.0) - SMALL.items - 100 * SMALL.births_per_s) <= 1
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
    assert newcomers.max() < world.users_born_until(40.0)
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


def test_a_scenario_shifts_the_logit_of_what_it_touches_while_it_lasts():
    shocked = World(SMALL)
    shocked.begin(Timeline(schedule("celebrity@40-80", 100.0)))
    shift = SCENARIOS["celebrity"].shifts[0]
    users, items = np.zeros(2, np.int64), np.array([shift.item, shift.item + 1])
    plain = World(SMALL)
    for t, moved in ((100.0, False), (140.0, True), (180.0, False)):
        p, q = (w.true_p(users, items, np.array([t])) for w in (shocked, plain))
        by = logit(p) - logit(q)
        assert by[0] == pytest.approx(shift.logit if moved else 0.0, abs=1e-3)
        assert by[1] == pytest.approx(0.0, abs=1e-3)


def test_black_friday_moves_some_categories_more_than_all_others(world):
    friday = World(SMALL)
    friday.begin(Timeline(schedule("black-friday@0", 10.0)))
    users, items, _ = draws(2_000)
    by = logit(friday.true_p(users, items, np.array([20.0]))) - logit(
        world.true_p(users, items, np.array([20.0]))
    )
    special = np.isin(world.items.category[items], (1, 2, 3))
    np.testing.assert_allclose(by[special], 1.2, atol=2e-3)
    np.testing.assert_allclose(by[~special], 0.4, atol=2e-3)


def test_switches_at_the_same_world_times_make_the_same_world():
    one, again, later = World(SMALL), World(SMALL), World(SMALL)
    for world, ended in ((one, 60.0), (again, 60.0), (later, 90.0)):
        world.switch("taste-drift", True, 30.0)
        world.switch("item-flood", True, 40.0)
        world.switch("taste-drift", False, ended)
    users, items, times = draws(500)
    np.testing.assert_array_equal(one.true_p(users, items, times), again.true_p(users, items, times))
    assert one.born_until(100.0) == again.born_until(100.0)
    assert not np.array_equal(one.true_p(users, items, times), later.true_p(users, items, times))


def test_a_schedule_makes_the_same_world_as_switches_at_its_times():
    planned, switched = World(SMALL), World(SMALL)
    planned.begin(Timeline(schedule("taste-drift@20-50,item-flood@30,user-wave@10-40", 10.0)))
    for name, on, at_s in (
        ("user-wave", True, 20.0), ("taste-drift", True, 30.0), ("item-flood", True, 40.0),
        ("user-wave", False, 50.0), ("taste-drift", False, 60.0),
    ):  # fmt: skip
        switched.switch(name, on, at_s)
    users, items, times = draws(500)
    np.testing.assert_array_equal(planned.true_p(users, items, times), switched.true_p(users, items, times))
    assert planned.born_until(100.0) == switched.born_until(100.0)
    assert planned.users_born_until(100.0) == switched.users_born_until(100.0)


def test_fast_tastes_go_on_from_where_they_were_and_end_where_they_got_to(world):
    fast = World(SMALL)
    fast.switch("taste-drift", True, 100.0)
    fast.switch("taste-drift", False, 160.0)
    users = np.arange(200)
    for t, slow in ((99.0, 99.0), (100.0, 100.0), (130.0, 700.0), (160.0, 1_300.0), (170.0, 1_310.0)):
        np.testing.assert_allclose(
            fast.taste(users, np.array([t])), world.taste(users, np.array([slow])), atol=1e-4
        )


def test_a_flood_brings_ten_times_the_items_each_at_a_time_of_its_own(world):
    flooded = World(SMALL)
    flooded.switch("item-flood", True, 50.0)
    flooded.switch("item-flood", False, 70.0)
    assert flooded.born_until(50.0) == world.born_until(50.0)
    more = flooded.born_until(100.0) - world.born_until(100.0)
    assert more == pytest.approx(20 * 9 * SMALL.births_per_s, abs=2)
    born = flooded.born_s(np.arange(SMALL.items, flooded.born_until(100.0)))
    assert (np.diff(born) >= 0).all() and born[-1] <= 100.0
    inside = ((born >= 50) & (born < 70)).sum()
    assert inside == pytest.approx(20 * 10 * SMALL.births_per_s, abs=2)


def visitors(world: World, t_s: float, n: int = 4_000) -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.array([world.visitor(t_s, rng.random(3)) for _ in range(n)])


def test_a_wave_of_new_users_visits_beside_the_usual_ones():
    wave = World(SMALL)
    wave.switch("user-wave", True, 20.0)
    born = wave.users_born_until(30.0) - SMALL.users
    assert born == pytest.approx((20 + 20 * 10) * SMALL.user_births_per_s, abs=2)
    for t, share in ((19.0, 0.05), (30.0, 0.35)):
        came = visitors(wave, t)
        assert (came >= 0).all() and came.max() < wave.users_born_until(t)
        assert (came >= SMALL.users).mean() == pytest.approx(share, abs=0.03)


def test_bots_come_while_they_are_on_and_click_on_what_is_bad(world):
    bots = World(SMALL)
    bots.switch("bots", True, 20.0)
    assert (visitors(bots, 19.0) >= 0).all()
    came = visitors(bots, 21.0)
    assert (came < 0).mean() == pytest.approx(1 / 3, abs=0.03)
    ids = {bots.visitor_id(one) for one in np.unique(came[came < 0]).tolist()}
    assert 30 < len(ids) <= 50 and not ids & set(world.users.ids.tolist())
    items = np.arange(1_000)
    np.testing.assert_array_equal(bots.bot_clicks(items) == 1, world.items.quality[items] < 0)


def test_an_unknown_scenario_is_named_with_the_known_ones():
    with pytest.raises(InvalidInput, match=r"scenario=nosuch: one of black-friday, celebrity"):
        scenario("nosuch")
    with pytest.raises(InvalidInput, match="scenario=nosuch"):
        World(SMALL).switch("nosuch", True, 0.0)


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
