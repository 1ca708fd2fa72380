"""The loop's benchmark: its arithmetic, and that its peers score as the loop does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from feature_kit import FEATURES, SHAPE
from trainer_kit import new_state, random_change

from benchmarks import loop_figures
from benchmarks.calibration import Calibration, calibrate
from benchmarks.closed_loop import Phase
from benchmarks.loop_figures import ALONE, BARE, MANY, OURS
from benchmarks.loop_world import arrays_of
from benchmarks.plain_model import PlainModel, largest
from services.contract import model_net
from services.recall.vector_table import VectorTable, best

USERS, ITEMS = np.arange(1, 8, dtype=np.uint64), np.arange(100, 400, dtype=np.uint64)


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, object]:
    """A model of random rows, some items without one, and random features."""
    rng = np.random.default_rng(4)
    state = new_state()
    for name, ids in (("user", USERS[:-1]), ("item", ITEMS[:250]), ("category", np.arange(6))):
        state.tables[name].apply(random_change(rng, name, ids.tolist()))
    state.dense["position_bias"][...] = rng.normal(0, 1, 32)
    state.dense["position_share"][...] = 1 / 32
    of_items = rng.normal(0, 8, (len(ITEMS), FEATURES.item_width)).astype(np.float32)
    # Two categories have no row.
    of_items[:, FEATURES.category_column] = rng.integers(0, 6, len(ITEMS))
    of_users = rng.normal(0, 8, (len(USERS), FEATURES.user_width)).astype(np.float32)
    path = tmp_path / "world.npz"
    np.savez(path, user_features=of_users, item_features=of_items, **arrays_of(state, USERS, ITEMS))
    return path, state


def test_the_peers_model_scores_as_rankings_does(world) -> None:
    path, state = world
    model = PlainModel.read(path)
    numbers = np.arange(len(ITEMS))
    # The last user has no row.
    for user in (0, len(USERS) - 1):
        given = model.user_features[user], model.item_features[numbers]
        wanted = model_net.score(state, int(USERS[user]), ITEMS, *given)
        items, scores = model.rank(user, numbers, *given, 100)
        np.testing.assert_allclose(scores, wanted[items], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(scores, np.sort(wanted)[::-1][:100], rtol=1e-4, atol=1e-6)


def test_the_peers_recall_finds_what_recall_finds(world) -> None:
    path, _ = world
    model = PlainModel.read(path)
    table = VectorTable(model.item_vectors.shape[1])
    table.upsert(ITEMS, model.item_vectors)
    for user in range(3):
        wanted = best(table, model.user_vectors[user], 40)
        assert set(ITEMS[model.recall(user, 40)].tolist()) == set(wanted.tolist())


@pytest.mark.parametrize("size", [50, 20_000])
def test_the_largest_are_the_largest(size: int) -> None:
    scores = np.random.default_rng(2).normal(0, 1, size).astype(np.float32)
    assert set(largest(scores, 40).tolist()) == set(np.argsort(scores)[-40:].tolist())


def phase(concurrency: int, latencies_ms: list[float], wall_s: float = 1.0) -> Phase:
    return Phase(concurrency, wall_s, latencies_ms, {"ranking": 0.3, "gateway": 0.1, "client": 0.2})


def test_rows_compare_rates_of_many_callers_and_latencies_of_one() -> None:
    phases = {
        (OURS, ALONE): [phase(1, [8.0] * 100), phase(1, [6.0] * 100)],
        (OURS, MANY): [phase(8, [30.0] * 260), phase(8, [30.0] * 240)],
        (BARE, ALONE): [phase(1, [7.0] * 100), phase(1, [8.0] * 100)],
        (BARE, MANY): [phase(8, [30.0] * 250), phase(8, [30.0] * 250)],
    }
    rates, latencies = loop_figures.compared(phases, Calibration(1.6))
    assert rates["ratio"] == {"median": 1.0, "min": 0.96, "max": 1.04}
    assert latencies["ratio"]["min"] == 0.75
    assert (rates["holds"], latencies["holds"]) == (True, True)
    shown = loop_figures.sides(phases)["ours_8"]
    assert shown["cpu_ms_per_request"]["servers"]["median"] == pytest.approx(0.4 / 250 * 1000, abs=0.01)


@pytest.mark.parametrize(("rank_ms", "holds"), [(1.6, None), (3.2, True), (0.8, None)])
def test_the_floor_of_a_peer_sinks_with_the_machine_and_never_rises(rank_ms: float, holds) -> None:
    phases = {(side, count): [phase(count, [10.0] * 200)] for side in (OURS, BARE) for count in (ALONE, MANY)}
    assert {one["holds"] for one in loop_figures.compared(phases, Calibration(rank_ms))} == {holds}


def test_the_calibration_ranks_and_says_how_long_it_took() -> None:
    assert calibrate(calls=3).rank_ms > 0


def timed(*took_ms: tuple[float, float], begin_s: int = 1_000) -> loop_figures.Timed:
    """(seconds since the begin, milliseconds) each."""
    return loop_figures.Timed(
        [int((begin_s + at_s) * 1e6) for at_s, _ in took_ms], [took for _, took in took_ms]
    )


def test_rows_under_load_are_by_windows_behind_the_warm_up() -> None:
    demo = {"freshness_s": {"p50": 0.5, "p99": 3.0}}
    warm_up = [(at_s, 900.0) for at_s in range(20)]
    answers = timed(*warm_up, (20, 10.0), (39.9, 10.0), (40, 30.0), (59, 30.0), (60, 20.0), (80, 20.0))
    applied = timed((3, 800.0), *[(25, 10.0)] * 98, (25, 90.0), (26, 400.0), (79, 80.0), (81, 900.0))
    found = loop_figures.under_load(demo, answers, applied)
    assert [one["holds"] for one in found] == [True, True, False, True]
    assert found[0]["ours"] == {"median": 20.0, "min": 10.0, "max": 30.0}
    assert found[3]["ours"]["median"] == pytest.approx((93.1 + 80) / 2), "no delta in the second window"


def test_requests_are_told_apart_by_how_many_were_in_progress_when_they_came(monkeypatch) -> None:
    monkeypatch.setattr(loop_figures, "FEWEST_REQUESTS", 1)
    # 0 to 100 ms; while it runs, two more; behind all of them one that ends where the next begins.
    answers = timed((0, 100.0), (0.05, 30.0), (0.06, 50.0), (1, 20.0), (1.02, 5.0))
    assert answers.by_in_flight() == [
        {"in_flight": 0, "requests": 3, "p50_ms": 20.0, "p99_ms": pytest.approx(98.4)},
        {"in_flight": 1, "requests": 1, "p50_ms": 30.0, "p99_ms": 30.0},
        {"in_flight": 2, "requests": 1, "p50_ms": 50.0, "p99_ms": 50.0},
    ]


def test_a_run_too_short_for_a_window_is_one() -> None:
    demo = {"freshness_s": {"p50": 0.5, "p99": 1.0}}
    found = loop_figures.under_load(demo, timed((0, 40.0), (39, 40.0)), timed((1, 9.0)))
    assert found[0]["ours"] == {"median": 40.0, "min": 40.0, "max": 40.0}
    assert found[3]["ours"]["median"] == 9.0


def test_the_model_of_the_peers_has_the_shape_of_the_loops(world) -> None:
    model = PlainModel.read(world[0])
    assert model.item_features.shape[1] == SHAPE.item_width
    assert model.user_features.shape[1] == SHAPE.user_width
