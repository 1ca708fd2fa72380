"""The figures of the simulated days, out of evidence that a test can count by hand."""

import numpy as np
import pytest

from local.days import newborn
from local.days.evidence import Answers, Evidence, Labels
from local.days.plan import ARMS, EXPERIMENT, FULL, SHARES, Plan, moment
from local.days.run import Run
from local.days.turn import Turn, said
from local.days.verdict import failures, figures, remarks
from local.errors import StartFailed
from services.contract.assignment import arm_of

US = 1_000_000
PLAN = Plan(days=2, day_s=100, black_friday=2, rate=1.0)
BEGIN_US = 1_000 * US
FRIDAY = (BEGIN_US + 100 * US, BEGIN_US + 200 * US)
# Per arm: what its users click on before and on Black Friday.
WORTH = {"frozen": (0.1, 0.2), "daily": (0.1, 0.3), "online": (0.1, 0.5), "online_daily": (0.1, 0.6)}
SHOWN = 10


def users_of(arm: str, count: int) -> list[int]:
    found = [user for user in range(4_000) if arm_of(user, EXPERIMENT, SHARES) == arm]
    return found[:count]


def evidence(worth: dict[str, tuple[float, float]] = WORTH, per_day: int = 200) -> Evidence:
    """Each arm answers 100 users ``per_day`` times a day; shown items click with exactly the worth."""
    rng = np.random.default_rng(4)
    rows, labels = [], []
    for arm, by_day in worth.items():
        users = users_of(arm, 100)
        for day, p in enumerate(by_day):
            for number in range(per_day):
                at_us = BEGIN_US + day * 100 * US + number * 100 * US // per_day
                generation = 2 if day and number > 20 and arm in ("daily", "online_daily") else 1
                rows.append((users[number % 100], at_us, arm, generation, p))
                labels += [
                    (users[number % 100], at_us, arm, p + rng.uniform(-0.05, 0.05), rng.random() < p)
                    for _ in range(SHOWN)
                ]
    user, at_us, arms, generation, p = map(np.array, zip(*rows, strict=True))
    answers = Answers(
        user_ids=user.astype(np.uint64), at_us=at_us, arms=arms.astype(object), generations=generation,
        shown=p, ideal=p + 0.05,
        row=np.repeat(np.arange(len(rows)), SHOWN), item_p=np.repeat(p, SHOWN),
        # Born at the beginning: as old as the run.
        item_age_s=np.repeat((at_us - BEGIN_US) / US, SHOWN),
    )  # fmt: skip
    user, at_us, arms, score, label = map(np.array, zip(*labels, strict=True))
    made = Labels(
        user.astype(np.uint64), at_us, arms.astype(object), score.astype(np.float32), label.astype(np.float32)
    )
    return Evidence(answers, made, [("black-friday", *FRIDAY)])


LOAD = {
    "requests": 1_600, "errors": 0, "requests_per_s": 8.0, "latency_ms": {"p50": 9.0, "p99": 20.0},
    "impressions": 16_000, "clicks": 4_000, "samples": 16_000, "duplicates": 0, "rejected_items": {},
    "unscored": 0, "degraded": {}, "scenarios": [], "drift": 0.25, "generator_cpu_ms_per_request": 2.0,
    "drained": True,
}  # fmt: skip
RUN = Run(BEGIN_US, [Turn(1, BEGIN_US + 100 * US, 2, "m", 5.0, 8.0, 9.5)], {"trainer": 3.0}, [])


def test_arms_are_judged_by_the_truth_of_what_each_showed():
    found = figures(RUN, PLAN, LOAD, evidence())
    for arm, (before, friday) in WORTH.items():
        one = found["arms"][arm]
        assert one["ctr_black_friday"] == pytest.approx(friday)
        assert one["ctr_true_by_day"] == pytest.approx([before, friday])
        assert one["ctr_true"] == pytest.approx((before + friday) / 2)
        assert one["ctr"] == pytest.approx((before + friday) / 2, abs=0.03)
        assert one["regret"] == pytest.approx(one["regret_black_friday"]) == pytest.approx(0.05)
        assert one["auc"] > 0.55 and one["requests"] == 400 and one["users"] == 100
    assert found["order_black_friday"]["holds"] and remarks(found) == []
    assert (found["black_friday"]["from_s"], found["black_friday"]["until_s"]) == (100, 200)
    assert failures(found) == []


def test_clicks_of_black_friday_are_compared_between_neighbours_of_the_order():
    friday = figures(RUN, PLAN, LOAD, evidence())["black_friday"]
    assert all(one["shown"] == 2_000 for one in friday["realised"].values())
    assert friday["realised"]["daily"]["ctr"] == pytest.approx(0.3, abs=0.04)
    first, second = friday["compared"]
    assert (first["arm"], first["control"]) == ("online_daily", "daily")
    assert first["low"] < 0.3 < first["high"] and first["low"] > 0 and first["verdict"] == "better"
    assert (second["arm"], second["control"]) == ("daily", "frozen") and second["users"] == 100


def test_equal_arms_are_not_called_different_and_the_order_is_a_remark_no_failure():
    same = dict.fromkeys(ARMS, (0.1, 0.3))
    found = figures(RUN, PLAN, LOAD, evidence(same))
    assert [one["verdict"] for one in found["black_friday"]["compared"]] == ["open", "open"]
    assert not found["order_black_friday"]["holds"] and failures(found) == []
    assert "not in the order expected: online_daily 0." in remarks(found)[0]


def test_a_switch_happened_when_answers_came_from_the_new_model():
    found = figures(RUN, PLAN, LOAD, evidence())
    assert found["switches"][0]["daily_served_s"] == pytest.approx(10.5)
    late = Run(BEGIN_US, [Turn(1, BEGIN_US + 100 * US, 3, "m", 5.0, 8.0, 9.5)], {}, [])
    problems = failures(figures(late, PLAN, LOAD, evidence()))
    assert problems == [
        f"day 1: no answer of arm {arm} came from generation 3" for arm in ("daily", "online_daily")
    ]
    none = failures(figures(Run(BEGIN_US, [], {}, []), PLAN, LOAD, evidence()))
    assert none == ["switches = 0, not 1"]


def test_errors_dropped_samples_and_deaths_are_failures():
    bad = {**LOAD, "errors": 2, "samples": 15_990, "rejected_items": {"late": 10}, "drained": False}
    problems = failures(figures(Run(BEGIN_US, RUN.turns, {}, ["joiner"]), PLAN, bad, evidence()))
    assert problems == [
        "errors = 2, not 0",
        "dropped_samples = 10, not 0 ({'late': 10})",
        "the load was not drained",
        "died: joiner",
    ]


def test_a_user_that_was_answered_by_another_arm_is_a_failure():
    found = evidence()
    found.answers.arms[0] = "online"
    assert "1 answers of another arm than the user's" in failures(figures(RUN, PLAN, LOAD, found))


def test_the_half_life_is_the_age_at_which_half_of_the_second_days_rate_is_reached():
    rng = np.random.default_rng(2)
    age = rng.uniform(0, 240, 50_000)
    rising = newborn.curve(age, 0.2 * (1 - np.exp(-age / 40)), 120)
    assert rising.final == pytest.approx(0.2, rel=0.05)
    # Half of it at 40 s x ln 2 = 28 s: in the mean of the ages from 20 to 30 s it is just not yet.
    assert rising.half_life_s() in (30.0, 40.0)
    assert newborn.curve(age, np.full(len(age), 0.2), 120).half_life_s() == 10.0
    assert newborn.curve(age[:30], age[:30], 120).half_life_s() is None


def test_a_span_of_ages_with_few_showings_says_nothing():
    age = np.concatenate([np.full(newborn.MIN_SHOWN - 1, 5.0), np.full(200, 25.0), np.full(200, 150.0)])
    found = newborn.curve(age, np.full(len(age), 0.1), 120)
    assert found.ctr[0] is None and found.ctr[1] is None and found.half_life_s() == 30.0
    assert found.shown[:3] == [newborn.MIN_SHOWN - 1, 0, 200]


def test_the_batch_trainers_last_words_are_read():
    log = '{"event":"pass"}\ngeneration 3\n/out/model-store/a1/manifest.json\n'
    assert said(log) == (3, "/out/model-store/a1/manifest.json")
    with pytest.raises(StartFailed, match="neither"):
        said("generation 3\n")


def test_black_friday_is_the_whole_of_day_4():
    assert FULL.schedule() == "black-friday@360-480" and FULL.duration_s == 600
    assert list(FULL.turns()) == [1, 2, 3, 4]
    assert moment(1_700_000_000) == "2023-11-14T22:13:20"
