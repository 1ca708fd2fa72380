"""The gate on the newest rows and the guard on served ones: what passes, what does not, and with what
evidence."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from services.contract.errors import Conflict
from services.contract.quality import calibration, histogram, population_stability
from services.release.gate import GateVerdict, Judged, Parameters, judge
from services.release.guard import Guard, Served
from services.release.settings import GateRules, GuardRules
from services.release.states import TABLE, State, Step, after

N = 6_000
FINE = Parameters(max_row_norm=3.0, max_dense_abs=1.0)


def rows(seed: int = 0, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the probabilities beside them: perfectly calibrated scores."""
    random = np.random.default_rng(seed)
    truth = random.beta(1, 9, n).astype(np.float32)
    return (random.random(n) < truth).astype(np.float32), truth


def gate(candidate=lambda truth: truth, parameters=FINE, n=N, canaries=(0.1, 0.2), served=(0.1, 0.2)):
    labels, truth = rows(n=n)
    own = np.asarray(candidate(truth), np.float32)
    judged = Judged(labels, truth, own, np.ones(n, np.float32))
    scored = np.array(canaries, np.float32), np.array(served, np.float32)
    return judge(judged, parameters, *scored, GateRules())


def broken(verdict: GateVerdict) -> list[str]:
    assert verdict.passed == (verdict.evidence()["failed"] == [])
    json.dumps(verdict.evidence(), allow_nan=False)
    return verdict.evidence()["failed"]  # type: ignore[return-value]


def shuffled(truth: np.ndarray) -> np.ndarray:
    return np.random.default_rng(1).permutation(truth)


@pytest.mark.parametrize(
    ("verdict", "names"),
    [
        (gate(), []),
        (gate(lambda t: 1 / (1 + np.exp(-(np.log(t / (1 - t)) + 0.1)))), []),
        (gate(shuffled), ["auc", "log_loss"]),
        (gate(lambda t: 1 - t), ["auc", "log_loss", "calibration"]),
        (gate(lambda t: t / 4), ["log_loss", "calibration"]),
        (gate(lambda t: np.where(t > 0.5, np.nan, t)), ["finite"]),
        (gate(n=500), ["rows"]),
        (gate(n=0), ["rows", "positives"]),
        (gate(parameters=replace(FINE, max_row_norm=51.0)), ["row_norm"]),
        (gate(parameters=replace(FINE, max_dense_abs=float("inf"))), ["finite", "dense_abs"]),
        (gate(parameters=replace(FINE, max_row_norm=float("nan"))), ["finite", "row_norm"]),
        (gate(canaries=(0.1, 0.1), served=(0.1, 0.2)), ["canary_spread"]),
        (gate(canaries=(0.1, 0.9), served=(0.1, 0.01)), ["canary_shift"]),
        (gate(canaries=(0.1, float("nan"))), ["finite"]),
    ],
    ids=lambda value: "-".join(value) or "good" if isinstance(value, list) else "",
)
def test_the_gate_names_what_is_wrong(verdict, names):
    assert broken(verdict) == names


def served(seed: int, *, requests: int = 400, score=lambda truth: truth, click=lambda truth: truth) -> Served:
    random = np.random.default_rng(seed)
    truth = random.beta(1, 9, requests * 10).astype(np.float32)
    labels = (random.random(len(truth)) < click(truth)).astype(np.float32)
    owner = np.repeat(np.arange(requests), 10)
    return Served(labels, np.asarray(score(truth), np.float32), np.ones(len(truth), np.float32), owner)


def test_two_arms_that_are_alike_are_left_alone_however_often_one_looks():
    guard = Guard(GuardRules())
    verdicts = [guard.look(served(2 * n), served(2 * n + 1)).decision for n in range(150)]
    assert set(verdicts) == {"hold"}


def test_a_difference_that_chance_makes_is_no_breach():
    rules = GuardRules()
    small = {"requests": 100}
    verdicts = [Guard(rules).look(served(2 * n, **small), served(2 * n + 1, **small)) for n in range(50)]
    assert [one.evidence()["failed"] for one in verdicts] == [[]] * 50
    # Beyond the limits all the same.
    gains = [one.arm["log_loss"] - one.baseline["log_loss"] for one in verdicts]
    assert max(gains) > rules.max_log_loss_gain
    assert min(one.arm["ctr"] / one.baseline["ctr"] for one in verdicts) < 1 - rules.max_ctr_loss


@pytest.mark.parametrize(
    "how",
    [{"click": lambda truth: np.minimum(1, truth * 4)}, {"score": lambda truth: truth * 0.02}],
    ids=["bots", "fifty times too low"],
)
def test_what_happens_to_both_arms_is_no_reason(how):
    guard = Guard(GuardRules())
    assert {guard.look(served(n, **how), served(n + 50, **how)).decision for n in range(5)} == {"hold"}


@pytest.mark.parametrize(
    ("how", "check", "windows"),
    [
        ({"score": lambda t: t * 0.4}, "calibration", 2),
        ({"score": lambda t: np.minimum(0.95, t + 0.3)}, "log_loss", 1),
        ({"click": lambda t: t * 0.4}, "ctr", 2),
        ({"score": lambda t: np.full_like(t, 0.999)}, "psi", 1),
        ({"score": lambda t: t * 0.02}, "calibration", 1),
        ({"click": lambda t: t * 0}, "ctr", 1),
    ],
    ids=["low forecasts", "high forecasts", "few clicks", "one score", "fifty times too low", "no clicks"],
)
def test_what_an_arm_does_alone_takes_it_back(how, check, windows):
    guard = Guard(GuardRules())
    verdicts = [guard.look(served(n, **how), served(n + 50)) for n in range(windows)]
    assert [one.decision for one in verdicts] == ["hold"] * (windows - 1) + ["rollback"]
    evidence = verdicts[-1].evidence()
    assert check in evidence["failed"]  # type: ignore[operator]
    assert json.loads(json.dumps(evidence, allow_nan=False))["windows_in_breach"] == windows


def test_an_arm_that_tells_more_apart_than_its_baseline_is_no_breach_though_its_scores_are_others():
    guard = Guard(GuardRules())
    for n in range(3):
        verdict = guard.look(served(n), served(n + 50, score=lambda t: np.full_like(t, 0.1)))
        assert (verdict.decision, verdict.breaches) == ("hold", 0)
    psi = next(check for check in verdict.checks if check.name == "psi")
    assert psi.value > GuardRules().max_psi


def test_one_bad_window_is_forgiven():
    guard = Guard(GuardRules())
    bad, good = served(1, click=lambda t: t * 0.4), served(2)
    decisions = [guard.look(window, served(3)).decision for window in (bad, good, bad, good)]
    assert decisions == ["hold"] * 4


def test_nothing_is_said_about_too_few_requests():
    guard = Guard(GuardRules())
    bad = served(1, requests=99, score=lambda t: np.full_like(t, 0.999))
    assert guard.look(bad, served(2)).decision == "wait"
    empty = served(1, requests=0)
    verdict = guard.look(served(1), empty)
    assert verdict.decision == "wait"
    json.dumps(verdict.evidence(), allow_nan=False)


def test_psi_is_zero_for_the_same_and_grows_with_the_distance():
    _, truth = rows()
    same = histogram(truth)
    assert same.sum() == N
    assert population_stability(same, same) == 0
    near, far = (population_stability(histogram(np.minimum(1, truth * by)), same) for by in (1.2, 4))
    assert 0 < near < 0.25 < far


def test_calibration_counts_what_a_row_stands_for():
    labels, scores = np.array([1, 0], np.float32), np.array([0.5, 0.25], np.float32)
    assert calibration(labels, scores) == pytest.approx(1 / 0.75)
    assert calibration(labels, scores, np.array([1, 2], np.float32)) == pytest.approx(1)


def test_every_state_is_reached_and_no_step_leads_back_to_what_was_rolled_back():
    reached = {State.REGISTERED}
    while grown := {to for (state, _), to in TABLE.items() if state in reached} - reached:
        reached |= grown
    assert reached == set(State)
    assert {step for _, step in TABLE} == set(Step)
    assert [step for state, step in TABLE if state is State.ROLLED_BACK] == []


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize("state", State)
def test_only_steps_of_the_table_are_taken(state, step):
    if (state, step) in TABLE:
        assert after(state, step) is TABLE[state, step]
    else:
        with pytest.raises(Conflict, match=f"{step} of a generation that is {state}: allowed are"):
            after(state, step)


def test_what_users_have_not_judged_is_served_to_all_only_by_hand():
    ways = {state for (state, step) in TABLE if step is Step.PROMOTED}
    assert ways == {State.GATED, State.SHADOW, State.AB, State.SUPERSEDED}
    assert State.REGISTERED not in ways and State.REJECTED not in ways
