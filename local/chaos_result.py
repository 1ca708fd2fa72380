"""What a chaos run plans to do, and what its figures must show. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from local.chaos_check import Difference

MIN_RATE = 200.0
MIN_OPEN_KILLS = 5
# A transaction of the joiner is open for some tens of ms, one of Flink from checkpoint to checkpoint; what
# its records say about their time is the client's clock.
OPEN_SPAN_MS = 1_500
NOT_SUMMED = ("impressions_per_s_min", "recovery_s", "round")


@dataclass(frozen=True)
class Round:
    """One strike. ``impressions_per_s``: acknowledged in the two seconds before it."""

    number: int
    fault: str
    victim: str
    at_ms: int
    impressions_per_s: float
    recovered_s: float


def plan(rounds: int) -> list[str]:
    """The faults in order: most are kills, most of these aimed; then pauses and the broker."""
    cycle = ("aimed", "kill", "aimed", "pause", "aimed", "broker", "aimed", "kill", "aimed", "aimed")
    return [cycle[number % len(cycle)] for number in range(rounds)]


def result(rounds: Sequence[Round], difference: Difference, aborted_ms: Sequence[int]) -> dict[str, Any]:
    """The figures of one host (keys: docs/results.md)."""
    kills = [r for r in rounds if r.fault in ("kill", "aimed")]
    opened = [r for r in kills if any(r.at_ms - OPEN_SPAN_MS <= at <= r.at_ms + 100 for at in aborted_ms)]
    recovered = sorted(r.recovered_s for r in rounds)
    return {
        "rounds": len(rounds),
        "kills": len(kills),
        "kills_in_open_transaction": len(opened),
        "pauses": sum(r.fault == "pause" for r in rounds),
        "broker_kills": sum(r.fault == "broker" for r in rounds),
        "impressions_per_s_min": min(r.impressions_per_s for r in rounds),
        "impressed_items": difference.impressed_items,
        "samples": difference.samples,
        "reason_rows": difference.reason_rows,
        "duplicates": difference.duplicates,
        "unexplained_losses": difference.unexplained_losses,
        "unjustified": difference.unjustified,
        "altered": difference.altered,
        "aborted_records": len(aborted_ms),
        "recovery_s": {"p50": recovered[len(recovered) // 2], "max": recovered[-1]},
        "round": [asdict(r) for r in rounds],
    }


def together(hosts: Mapping[str, dict[str, Any]], skipped: Mapping[str, str]) -> dict[str, Any]:
    """The content of out/chaos-join.json: sums over the hosts, then each of them.

    ``skipped``: host -> why it did not run."""
    figures = list(hosts.values())
    summed = {key: sum(one[key] for one in figures) for key in figures[0] if key not in NOT_SUMMED}
    lowest = min(one["impressions_per_s_min"] for one in figures)
    return {**summed, "impressions_per_s_min": lowest, "hosts": dict(hosts), "skipped": dict(skipped)}


def failures(figures: dict[str, Any], wanted_rounds: int) -> list[str]:
    """What in the figures of a host does not show what it should; empty when all does."""
    problems = [
        f"{name} = {figures[name]}, not 0"
        for name in ("duplicates", "unexplained_losses", "unjustified", "altered")
        if figures[name]
    ]
    if figures["rounds"] < wanted_rounds:
        problems.append(f"{figures['rounds']} rounds of {wanted_rounds}")
    if figures["impressions_per_s_min"] < MIN_RATE:
        problems.append(f"{figures['impressions_per_s_min']} impressions/s at a strike, below {MIN_RATE:.0f}")
    if not figures["samples"]:
        problems.append("no samples: nothing was proved")
    enough = min(MIN_OPEN_KILLS, wanted_rounds // 4)
    if figures["kills_in_open_transaction"] < enough:
        problems.append(
            f"{figures['kills_in_open_transaction']} kills in an open transaction, fewer than {enough}"
        )
    return problems
