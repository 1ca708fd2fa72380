"""Rows with error bars, and what in them does not hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen import sync_pass
from local.freshness import world
from local.freshness.command import BARRIER_S, INTERVALS_S, planned
from local.freshness.passes import Pass, load_command, with_arms
from local.freshness.verdict import bars, failures, rows
from local.ports import Ports
from local.report.numbers import interval
from local.stack_config import StackConfig
from services.contract.times import MICROS, leaves
from trainer.pace import Pace

INTERVALS = (600, 3_600, 86_400, None)
GOOD = {600: 0.750, 3_600: 0.748, 86_400: 0.740, None: 0.700}


def arm(interval_s: int | None, auc: float) -> dict[str, Any]:
    return {
        "interval_s": interval_s,
        "auc": auc,
        "auc_all": auc if interval_s else None,
        "log_loss": 0.6,
        "delta_bytes": 100,
        "cpu_s": 1.0,
    }


def one_pass(seed: int, aucs: dict[int | None, float], barrier_s: int = 600) -> dict[str, Any]:
    shifted = [arm(seconds, auc + 0.001 * (seed - 2)) for seconds, auc in aucs.items()]
    closed = {"samples": 9, "events": 9, "duplicates": 0}
    return {"seed": seed, "barrier_s": barrier_s, "arms": shifted, **closed}


def whole(aucs: dict[int | None, float] = GOOD, short: float = 0.76) -> list[dict[str, Any]]:
    return [*(one_pass(seed, aucs) for seed in (1, 2, 3)), one_pass(2, {60: short}, 60)]


def test_rows_are_means_with_error_bars_and_never_stands_last() -> None:
    made = rows([one_pass(seed, GOOD) for seed in (3, 1, 2)])
    assert [row["interval_s"] for row in made] == list(INTERVALS)
    assert made[0]["auc"] == {"mean": pytest.approx(0.75), "std": pytest.approx(0.001), "seeds": 3}
    assert made[0]["auc_all"] == pytest.approx(0.75) and made[-1]["auc_all"] is None
    assert rows([one_pass(1, GOOD)])[0]["auc"]["std"] is None
    assert bars(made[0], made[1]) == pytest.approx((2 * 0.001**2 / 3) ** 0.5)


def test_what_holds_has_no_failures() -> None:
    assert failures(rows(whole()), whole(), whole=True) == []


def test_within_the_error_bars_no_interval_is_better() -> None:
    # A standard error of a difference is 0.0008 here.
    passes = whole(GOOD | {86_400: 0.7485})
    assert failures(rows(passes), passes, whole=True) == []


@pytest.mark.parametrize(
    ("aucs", "short", "said"),
    [
        (GOOD | {86_400: 0.7489}, 0.76, "1 d is better than 1 h"),
        (GOOD | {None: 0.745}, 0.76, "never is better than 1 d"),
        (GOOD | {3_600: 0.75, 86_400: 0.7499}, 0.76, "10 min is not better than 1 d"),
        (GOOD | {600: 0.744, 3_600: 0.743}, 0.76, "600 s: auc_all"),
        (GOOD, 0.75, "60 s: auc_all"),
    ],
)
def test_a_claim_that_does_not_hold_is_named(aucs, short, said) -> None:
    passes = whole(aucs, short)
    found = failures(rows(passes), passes, whole=True)
    assert len(found) == 1 and said in found[0]


def test_a_loop_that_did_not_close_is_named_in_a_short_run_too() -> None:
    passes = [one_pass(1, GOOD) | {"samples": 8}]
    assert failures(rows(passes), passes, whole=False) == [
        "seed 1, barrier 600 s: 8 samples of 9 events, 0 twice"
    ]
    assert "fewer than 2 intervals have 3 seeds" in failures(rows(passes), passes, whole=True)
    twice = [one_pass(1, GOOD) | {"duplicates": 2}]
    assert failures(rows(twice), twice, whole=False) == [
        "seed 1, barrier 600 s: 9 samples of 9 events, 2 twice"
    ]


def test_intervals_are_named_as_one_says_them() -> None:
    assert [interval(s) for s in (60, 600, 18_000, 604_800, 61, None)] == [
        "1 min", "10 min", "5 h", "7 d", "61 s", "never",
    ]  # fmt: skip


def test_trainer_and_pass_are_told_the_same_arms(tmp_path: Path) -> None:
    config = StackConfig(tmp_path, ports=Ports.free(), seed=["--world", "replay"])
    one = planned(3, quick=False)[1]
    assert one == Pass(2, BARRIER_S, INTERVALS_S)
    told = with_arms(config, one)
    arguments = load_command(told, tmp_path, one, tmp_path / "result.json", 0)
    parsed = sync_pass.parse(arguments[1:])
    paces = json.loads(told.process_env["trainer"]["RECLOOP_PACES"])
    assert [(pace["policy"], pace["interval_s"]) for pace in paces] == [
        (paced.name, paced.interval_s) for paced in parsed.arm
    ]
    assert json.loads(told.process_env["trainer"]["RECLOOP_EXTRA_ARMS"]) == [p.name for p in parsed.arm]
    assert parsed.never in {paced.name for paced in parsed.arm}
    assert list(told.seed or ())[-2:] == ["--model-seed", "2"]
    assert planned(3, quick=False)[-1] == Pass(1, 60, ()) and len(planned(1, quick=True)) == 1


def test_a_pass_counts_only_behind_its_first_part_and_only_what_was_scored() -> None:
    labels = np.array([1, 0, 1, 0, 1, 0, 1, 0], np.float64)
    scores = np.array([0.1, 0.9, 0.9, 0.1, 0.9, 0.1, 0.1, 0.9], np.float32)
    found = sync_pass.figures(labels, scores, warm=2)
    assert (found["auc"], found["events"]) == (pytest.approx(6 / 9), 6)
    assert found["auc_all"] == pytest.approx(0.5)
    scores[:4] = np.nan
    late = sync_pass.figures(labels, scores, warm=2)
    assert (late["events"], late["auc_all"]) == (4, None) and late["auc"] == pytest.approx(0.25 + 0.25)


@pytest.mark.parametrize(
    ("before", "after", "due"),
    [(0, 3_599, False), (0, 3_600, True), (3_600, 7_199, False), (3_599, 9_000, True)],
)
def test_the_pass_waits_for_exactly_the_arms_that_publish(before: int, after: int, due: bool) -> None:
    assert leaves(before * MICROS, after * MICROS, 3_600 * MICROS) is due
    if before:
        assert Pace(3_600 * MICROS, before * MICROS).due(after * MICROS) is due


@pytest.mark.parametrize(
    ("elapsed_s", "done", "left_s", "more"),
    [
        (900, 0, 3_600, True), (249, 1, 3_600, True), (251, 1, 3_600, False), (333, 2, 3_600, True),
        (334, 2, 3_600, False), (900, 0, -50, True), (119, 1, 300, True), (121, 1, 300, False),
    ],
)  # fmt: skip
def test_another_seed_of_the_world_begins_only_when_it_will_end_in_time(
    elapsed_s, done, left_s, more
) -> None:
    assert (world.BUDGET_S, world.WINDOWS_TAKE_S) == (500, 60)
    assert world.in_budget(elapsed_s, done, left_s) is more


def test_the_world_is_told_apart_where_its_loop_did_not_close() -> None:
    closed, open_ = ({"passes": [one_pass(1, GOOD) | {"samples": count}]} for count in (9, 8))
    assert world.world_failures({"drift": closed, "still": closed}) == []
    [found] = world.world_failures({"drift": closed, "still": open_})
    assert found.startswith("world, still: seed 1") and "8 samples of 9 events" in found


@pytest.mark.parametrize(
    "bad", [["--arm", "hourly"], ["--arm", "hourly=0"], ["--arm", "x=90"], ["--never", "hourly"]]
)
def test_bad_arms_are_refused(bad: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    targets = [part for name in sync_pass.TARGETS for part in (f"--{name}", "h:1")]
    with pytest.raises(SystemExit):
        sync_pass.parse(
            ["--data", "x", "--kafka", "h:1", "--result", "r", "--barrier-s", "60", *targets, *bad]
        )
    assert bad[0] in capsys.readouterr().err
