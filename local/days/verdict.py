"""The figures of out/demo-days.json, and what must hold of them. Pure.

*True* figures are means of true click probabilities: what users would click on whatever its position, known
to the world alone. Realised ones are clicks. Regret is what the best ten of each answer would have been worth
above the ten that were shown, per shown item, by the truth of that moment (scenarios included).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from local.days.evidence import Answers, Evidence, Labels
from local.days.newborn import SPAN_S, curve
from local.days.plan import ARMS, BLACK_FRIDAY, DAILY, EXPERIMENT, FROZEN, ONLINE_DAILY, SHARES, Plan
from local.days.run import Run
from local.days.turn import Turn
from services.contract import quality
from services.contract.assignment import arm_of
from services.contract.sequential import ArmClicks, Comparison, SequentialTest

US = 1_000_000
# Between two looks at the clicks of Black Friday.
LOOK_S = 10
# Better first.
ORDER = (ONLINE_DAILY, DAILY, FROZEN)
LOAD = (
    "requests",
    "errors",
    "requests_per_s",
    "latency_ms",
    "impressions",
    "clicks",
    "samples",
    "duplicates",
)


@dataclass(frozen=True)
class Rules:
    """Of the sequential test (services.contract.sequential)."""

    alpha: float = 0.05
    tau: float = 0.02
    min_users: int = 50


def figures(run: Run, plan: Plan, load: Mapping[str, Any], found: Evidence) -> dict[str, Any]:
    """Keys: docs/results.md. ``load``: the load generator's demo.json."""
    answers, labels = found.answers, found.labels
    friday = next(((a, b) for name, a, b in found.scenarios if name == BLACK_FRIDAY), (0, 0))
    arms = {arm: _arm(arm, answers, labels, friday=friday, begin_us=run.begin_us, plan=plan) for arm in ARMS}
    best = [arms[arm]["ctr_black_friday"] for arm in ORDER]
    wished = [arm_of(user, EXPERIMENT, SHARES) for user in answers.user_ids.tolist()]
    return {
        "arms": arms,
        "switches": [_switch(one, answers) for one in run.turns],
        "errors": load["errors"],
        "dropped_samples": load["impressions"] - load["samples"],
        "rejected_items": load["rejected_items"],
        "order_black_friday": {
            "expected": list(ORDER),
            "holds": None not in best and all(a > b for a, b in pairwise(best)),
        },
        "black_friday": {
            "from_s": (friday[0] - run.begin_us) / US,
            "until_s": (friday[1] - run.begin_us) / US,
            **_realised(labels, friday),
        },
        "other_arm_answers": int((answers.arms != np.array(wished, object)).sum()),
        "unscored": load["unscored"],
        "load": {name: load[name] for name in LOAD},
        "degraded": load["degraded"],
        "scenarios": load["scenarios"],
        "days": plan.days,
        "day_s": plan.day_s,
        "rate": plan.rate,
        "drift": load["drift"],
        "cpu_s": {
            **run.cpu_s,
            "loadgen": round(load["generator_cpu_ms_per_request"] * load["requests"] / 1000, 1),
        },
        "drained": load["drained"],
        "deaths": list(run.deaths),
    }


def failures(found: Mapping[str, Any]) -> list[str]:
    """What makes the run fail; empty when it holds. The order of the arms is reported, not required: it is
    what the run measures."""
    checks = {
        f"errors = {found['errors']}, not 0": found["errors"] == 0,
        f"dropped_samples = {found['dropped_samples']}, not 0 ({found['rejected_items']})": (
            found["dropped_samples"] == 0
        ),
        f"duplicates = {found['load']['duplicates']}, not 0": found["load"]["duplicates"] == 0,
        f"switches = {len(found['switches'])}, not {found['days'] - 1}": (
            len(found["switches"]) == found["days"] - 1
        ),
        **{
            f"day {one['day']}: no answer of arm {arm} came from generation {one['generation']}": (
                one[f"{arm}_served_s"] is not None
            )
            for one in found["switches"]
            for arm in (DAILY, ONLINE_DAILY)
        },
        f"{found['other_arm_answers']} answers of another arm than the user's": found["other_arm_answers"]
        == 0,
        f"unscored = {found['unscored']}, not 0": found["unscored"] == 0,
        f"{BLACK_FRIDAY} was not on": found["black_friday"]["until_s"] > found["black_friday"]["from_s"],
        "the load was not drained": found["drained"],
        f"died: {', '.join(found['deaths'])}": not found["deaths"],
    }
    return [said for said, holds in checks.items() if not holds]


def remarks(found: Mapping[str, Any]) -> list[str]:
    """What was to be seen and was not."""
    order = found["order_black_friday"]
    if order["holds"]:
        return []
    said = ", ".join(f"{arm} {found['arms'][arm]['ctr_black_friday']}" for arm in order["expected"])
    return [f"ctr_black_friday is not in the order expected: {said}"]


def _arm(
    arm: str, answers: Answers, labels: Labels, *, friday: tuple[int, int], begin_us: int, plan: Plan
) -> dict[str, Any]:
    own, served = answers.arms == arm, labels.arms == arm
    on_friday = own & _within(answers.at_us, friday)
    regret = answers.ideal - answers.shown
    newborn = _newborn(arm, answers, friday, begin_us, plan)
    day = (answers.at_us - begin_us) // (plan.day_s * US) + 1
    return {
        "ctr": _mean(labels.labels[served] > 0),
        "ctr_black_friday": _mean(answers.shown[on_friday]),
        "auc": _finite(quality.auc(labels.labels[served], labels.scores[served])),
        "regret": _mean(regret[own]),
        "new_item_half_life_s": newborn["half_life_s"],
        "ctr_true": _mean(answers.shown[own]),
        "regret_black_friday": _mean(regret[on_friday]),
        "ctr_true_by_day": [_mean(answers.shown[own & (day == one)]) for one in range(1, plan.days + 1)],
        "regret_by_day": [_mean(regret[own & (day == one)]) for one in range(1, plan.days + 1)],
        "requests": int(own.sum()),
        "users": len(np.unique(answers.user_ids[own])),
        "new_items": newborn,
    }


def _newborn(
    arm: str, answers: Answers, friday: tuple[int, int], begin_us: int, plan: Plan
) -> dict[str, Any]:
    """Of items born in the run, without Black Friday, which would lift whichever ages fall on it."""
    at_us = answers.at_us[answers.row]
    born_us = at_us - answers.item_age_s * US
    taken = (answers.arms[answers.row] == arm) & (born_us >= begin_us) & ~_within(at_us, friday)
    found = curve(answers.item_age_s[taken], answers.item_p[taken], plan.day_s)
    return {
        "half_life_s": found.half_life_s(),
        "final_ctr": found.final,
        "span_s": SPAN_S,
        "ctr_by_age": found.ctr,
        "shown_by_age": found.shown,
    }


def _switch(one: Turn, answers: Answers) -> dict[str, Any]:
    """Seconds from the day's end to the first answer of each arm by the day's model."""
    served: dict[str, float | None] = {}
    for arm in (DAILY, ONLINE_DAILY):
        by_it = answers.at_us[(answers.arms == arm) & (answers.generations == one.generation)]
        served[f"{arm}_served_s"] = float(by_it.min() - one.end_us) / US if len(by_it) else None
    return {
        "day": one.day,
        "generation": one.generation,
        "batch_s": one.batch_s,
        "registered_s": one.registered_s,
        "caught_up_s": one.caught_up_s,
        **served,
    }


def _realised(labels: Labels, friday: tuple[int, int]) -> dict[str, Any]:
    """Clicks of that day: by arm, and neighbours in the order compared, looked at every LOOK_S seconds."""
    clicks = {arm: ArmClicks() for arm in ARMS}
    tests = {pair: SequentialTest(Rules()) for pair in pairwise(ORDER)}
    looks: dict[tuple[str, str], Comparison] = {}
    totals = {arm: [0, 0] for arm in ARMS}
    for start_us in range(friday[0], friday[1], LOOK_S * US):
        rows = _within(labels.at_us, (start_us, min(start_us + LOOK_S * US, friday[1])))
        for arm in ARMS:
            own = rows & (labels.arms == arm)
            users, place = np.unique(labels.user_ids[own], return_inverse=True)
            shown = np.bincount(place, minlength=len(users)).astype(np.float64)
            clicked = np.bincount(place, labels.labels[own] > 0, minlength=len(users)).astype(np.float64)
            clicks[arm].add(users.tolist(), shown, clicked)
            totals[arm][0] += int(clicked.sum())
            totals[arm][1] += int(shown.sum())
        looks |= {pair: test.look(clicks[pair[0]], clicks[pair[1]]) for pair, test in tests.items()}
    return {
        "realised": {
            arm: {"clicks": some, "shown": shown, "ctr": some / shown if shown else None}
            for arm, (some, shown) in totals.items()
        },
        "compared": [
            {
                "arm": pair[0],
                "control": pair[1],
                "difference": _finite(look.difference),
                "low": _finite(look.low),
                "high": _finite(look.high),
                "p_value": look.p_value,
                "users": look.users,
                "verdict": look.verdict,
                "alpha": Rules.alpha,
            }
            for pair, look in looks.items()
        ],
    }


def _within(at_us: NDArray[np.int64], span: tuple[int, int]) -> NDArray[np.bool_]:
    return (at_us >= span[0]) & (at_us < span[1])


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
