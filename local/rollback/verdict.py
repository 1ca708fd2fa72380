"""The figures of out/rollback.json, and what must hold of them. Pure.

Every figure is read from what was left behind: answers with their provenance as the client saw them, records
of Kafka with their times, the moments at which something was planted. All times are of one machine's clock.

*Bad* is an answer from a state that holds a fault: a corrupt delta, a delta with a parameter out of bounds, a
generation that the gate refused, or a state that was made after the bots had come and was taken back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.contract import topics

# A minute of learning is taken back in so long.
ROLLBACK_S = 3.0
TAKEN_BACK_S = 60.0
# The trainer takes no step beyond it (trainer.settings: learning.max_abs_value).
MAX_ABS = 50.0
US = 1e6
ORDER = (
    "corrupt_delta", "exploding_learning_rate", "corrupt_full_model", "bad_full_model", "poisoned_clicks",
)  # fmt: skip
_COUNTS = ("rows", "positives")

Rows = Sequence[Mapping[str, Any]]
Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Logs:
    """``answers``: scored ones, by column (loadgen.rows.RequestRow); ``applied``: what ranking applied
    (AppliedRow); the others as watch.py reads them, each in the order of its log."""

    answers: Columns
    applied: Columns
    events: Rows
    dead_letters: Rows
    deltas: Rows


@dataclass(frozen=True)
class _Case:
    """Seconds since the plant, None = never."""

    detected_us: int | None
    recovered_us: int | None
    # By answer.
    bad: NDArray[np.bool_]


def figures(
    plants: Mapping[str, Mapping[str, Any]],
    chain: Mapping[str, Any],
    logs: Logs,
    load: Mapping[str, Any],
    bots: Mapping[str, int],
) -> dict[str, Any]:
    """Keys: docs/results.md."""
    found = {
        "corrupt_delta": _corrupt_delta(plants, logs),
        "exploding_learning_rate": _exploding(plants, logs),
        "corrupt_full_model": _refused_model("corrupt_full_model", plants, logs),
        "bad_full_model": _refused_model("bad_full_model", plants, logs),
        "poisoned_clicks": _poisoned(plants, logs),
    }
    rolled = rollbacks(logs)
    began_us = plants["poisoned_clicks"]["planted_us"]
    baseline = logs.answers["arm"] == "baseline"
    return {
        "cases": [_said(name, plants[name]["planted_us"], found[name], logs) for name in ORDER],
        "rollbacks": rolled,
        "false_alarms": sum(
            one["ordered_us"] < plants["exploding_learning_rate"]["planted_us"] for one in rolled
        ),
        "requests": load["requests"],
        "errors": load["errors"],
        "latency_ms": load["latency_ms"],
        "bots": dict(bots),
        "arms": dict(sorted(Counter(logs.answers["arm"].tolist()).items())),
        "baseline": {
            "answers": int(baseline.sum()),
            "bad": int((baseline & found["poisoned_clicks"].bad).sum()),
        },
        "true_ctr": _true_ctr(began_us, found["poisoned_clicks"], logs),
        "chain_is_true": any(
            (one["sequence"], one["hash"]) == (chain["sequence"], chain["hash"]) for one in logs.deltas
        ),
        "refused_deltas": chain["refused"],
        "events": [dict(one) for one in logs.events],
    }


def rollbacks(logs: Logs) -> list[dict[str, Any]]:
    """Every one that was carried out: what failed, how much was taken back (s of learning, rows), how long
    from the order until ranking served the difference."""
    ordered = {one["order"]: one for one in logs.events if one["decision"] == "rollback_ordered"}
    created = {one["sequence"]: one["created_us"] for one in logs.deltas}
    found = []
    for one in logs.events:
        if one["decision"] != "rolled_back":
            continue
        order = ordered[one["order"]]
        healthy_us = _applied_us(logs, one["sequence"])
        restored_us = created.get(one["restored_sequence"], min(created.values(), default=0))
        found.append(
            {
                "ordered_us": order["at_us"],
                "reason": order.get("reason", ""),
                "failed": order.get("guard", {}).get("failed", []),
                "restored_sequence": one["restored_sequence"],
                "sequence": one["sequence"],
                "rows": one["rows"],
                "taken_back_s": _seconds(order["at_us"], restored_us),
                "healthy_s": None if healthy_us is None else _seconds(healthy_us, order["at_us"]),
            }
        )
    return found


def failures(found: Mapping[str, Any]) -> list[str]:
    """What must show and does not; empty when all does. ``found``: the figures, with deaths and quick."""
    checks = {
        f"errors = {found['errors']}, not 0": found["errors"] == 0,
        f"errors of the bots = {found['bots'].get('errors')}, not 0": found["bots"].get("errors") == 0,
        f"died: {', '.join(found['deaths'])}": not found["deaths"],
        f"{found['false_alarms']} rollbacks before anything that the model learns from was wrong": found[
            "false_alarms"
        ]
        == 0,
        "ranking does not serve a state of the trainer's chain": found["chain_is_true"],
        "the baseline served nobody": found["baseline"]["answers"] > 0,
        f"the baseline served {found['baseline']['bad']} bad answers": found["baseline"]["bad"] == 0,
    }
    for case in found["cases"]:
        name = case["name"]
        checks[f"{name}: not detected"] = case["detected_s"] is not None
        checks[f"{name}: not recovered"] = case["recovered_s"] is not None
        checks[f"{name}: {case['served_bad_after']} bad answers after it"] = case["served_bad_after"] == 0
        if name != "poisoned_clicks":
            checks[f"{name}: served_bad = {case['served_bad']}, not 0"] = case["served_bad"] == 0
    for one in found["rollbacks"]:
        took_s, said = one["healthy_s"], f"rollback to sequence {one['restored_sequence']}"
        checks[f"{said}: never served"] = took_s is not None
        # A quick run shows that it works, on any machine; how fast is for the full one to say.
        checks[f"{said}: {took_s} s, more than {ROLLBACK_S}"] = (
            found["quick"] or took_s is None or took_s <= ROLLBACK_S
        )
    longest = max((one["taken_back_s"] for one in found["rollbacks"]), default=0.0)
    checks[f"{longest} s of learning taken back, less than {TAKEN_BACK_S:.0f}"] = longest >= TAKEN_BACK_S
    return [said for said, holds in checks.items() if not holds]


def _corrupt_delta(plants: Mapping[str, Mapping[str, Any]], logs: Logs) -> _Case:
    plant = plants["corrupt_delta"]
    offsets = set(plant["offsets"])
    refused = [
        one
        for one in logs.dead_letters
        if one["origin"] == topics.MODEL_DELTAS.name and one["offset"] in offsets
    ]
    complete = {one["offset"] for one in refused} == offsets
    applied = logs.applied
    # Made of the delta before: its place in the chain, with the other's time.
    corrupt = (applied["sequence"] == plant["sequence"]) & (applied["created_us"] == plant["created_us"])
    bad = np.isin(logs.answers["applied_us"], applied["applied_us"][corrupt])
    if not complete:
        return _Case(None, None, bad)
    # What is applied then stands behind them in the log.
    over_us = max(one["at_us"] for one in refused)
    true = applied["applied_us"][~corrupt & (applied["applied_us"] >= over_us)]
    return _Case(_first(one["at_us"] for one in refused), _first(true.tolist()), bad)


def _exploding(plants: Mapping[str, Mapping[str, Any]], logs: Logs) -> _Case:
    plant = plants["exploding_learning_rate"]
    steps = (one for one in logs.dead_letters if one["reason"].startswith("step_"))
    detected = _first(one["at_us"] for one in steps if one["at_us"] >= plant["planted_us"])
    # One that is told to end publishes what it has: only a newer epoch is the trainer with its setting back.
    wrong = max((one["epoch"] for one in logs.deltas if one["created_us"] <= plant["mended_us"]), default=0)
    back = [
        one["sequence"]
        for one in logs.deltas
        if one["created_us"] > plant["mended_us"] and one["epoch"] > wrong
    ]
    recovered = _applied_us(logs, back[0]) if back else None
    wild = [one["sequence"] for one in logs.deltas if not one["max_abs"] <= MAX_ABS]
    return _Case(detected, recovered, _online(logs) & np.isin(logs.answers["sequence"], wild))


def _refused_model(name: str, plants: Mapping[str, Mapping[str, Any]], logs: Logs) -> _Case:
    generation = plants[name]["generation"]
    said = next(
        (
            one
            for one in logs.events
            if one["decision"] == "gate_failed"
            and one["arm"] == f"generation/{generation}/life"
            and set(one["failed"]) - {*_COUNTS}
        ),
        None,
    )
    at_us = None if said is None else said["at_us"]
    return _Case(at_us, at_us, logs.answers["generation"] == generation)


def _poisoned(plants: Mapping[str, Mapping[str, Any]], logs: Logs) -> _Case:
    began_us = plants["poisoned_clicks"]["planted_us"]
    carried = [one for one in rollbacks(logs) if one["ordered_us"] >= began_us]
    made_us = {one["sequence"]: one["created_us"] for one in logs.deltas}
    undone = [
        sequence
        for sequence, at_us in made_us.items()
        if at_us >= began_us and any(one["restored_sequence"] < sequence < one["sequence"] for one in carried)
    ]
    bad = (logs.answers["generation"] == 1) & np.isin(logs.answers["sequence"], undone)
    detected = _first(one["ordered_us"] for one in carried)
    return _Case(detected, _applied_us(logs, carried[-1]["sequence"]) if carried else None, bad)


def _said(name: str, planted_us: int, case: _Case, logs: Logs) -> dict[str, Any]:
    def since(at_us: int | None) -> float | None:
        return None if at_us is None else _seconds(at_us, planted_us)

    # Of the requests that were sent once it was over.
    over = logs.answers["sent_us"] > (np.inf if case.recovered_us is None else case.recovered_us)
    return {
        "name": name,
        "planted_us": planted_us,
        "detected_s": since(case.detected_us),
        "recovered_s": since(case.recovered_us),
        "served_bad": int(case.bad.sum()),
        "served_bad_after": int((case.bad & over).sum()),
    }


def _true_ctr(began_us: int, case: _Case, logs: Logs) -> dict[str, dict[str, float | None]]:
    """Mean true click probability of what users on either arm were shown: as long before the bots came as it
    took to recover, until then, and after. The world drifts: the arms are to be compared, not the spans."""
    if case.recovered_us is None:
        return {}
    at_us, p = logs.answers["sent_us"], logs.answers["shown_true_p"]
    spans = {
        "before": (2 * began_us - case.recovered_us, began_us),
        "poisoned": (began_us, case.recovered_us),
        "after": (case.recovered_us, np.inf),
    }
    found: dict[str, dict[str, float | None]] = {}
    for name, (start, end) in spans.items():
        inside = (at_us >= start) & (at_us < end) & np.isfinite(p)
        found[name] = {}
        for arm in ("online", "baseline"):
            shown = p[inside & (logs.answers["arm"] == arm)]
            found[name][arm] = round(float(shown.mean()), 4) if len(shown) else None
    return found


def _online(logs: Logs) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = logs.answers["arm"] == "online"
    return found


def _applied_us(logs: Logs, sequence: int) -> int | None:
    """When ranking applied a delta of the first generation."""
    applied = logs.applied
    mine = applied["applied_us"][(applied["generation"] == 1) & (applied["sequence"] == sequence)]
    return _first(mine.tolist())


def _first(moments: Any) -> int | None:
    return min((int(one) for one in moments), default=None)


def _seconds(later_us: int, earlier_us: int) -> float:
    return round((later_us - earlier_us) / US, 2)
