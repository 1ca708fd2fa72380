"""What rounds of the feature benchmark add up to: figures, ratios, misses, and the table. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.figures import cell, spread

# Of the headline; those of Feast are the least, the others the most that is wanted.
TARGETS = {"echo_cpu_ratio": 1.5, "feast_ratio": 50, "feast_array_ratio": 20, "asof_vs_plain_ratio": 2}
HEADLINE, BASE = "live", "echo"
PEERS = ("feast", "feast_array")

Columns = Mapping[str, Sequence[float]]


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    p50, p99 = np.percentile(np.array(seconds) * 1000, (50, 99))
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


def serving(cpu_s: Columns, walls_s: Columns) -> dict[str, Any]:
    """``cpu_s``: by side, CPU seconds a request of each round, sides by turns. ``walls_s``: by side, the
    seconds of each request. A ratio is that of neighbouring rounds to the echo's."""
    ratios = {
        name: spread([one / base for one, base in zip(column, cpu_s[BASE], strict=True)])
        for name, column in cpu_s.items()
        if name != BASE
    }
    return {
        "cpu_ms": {name: spread([one * 1000 for one in column]) for name, column in cpu_s.items()},
        "cpu_ratio": ratios,
        "latency_ms": {name: latency(column) for name, column in walls_s.items() if column},
    }


def headline(served: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that have targets, of those sides that were there."""
    slow = served["latency_ms"]
    result = {"echo_cpu_ratio": served["cpu_ratio"][HEADLINE]["median"], "latency_ms": slow[HEADLINE]}
    for peer in PEERS:
        if peer in slow:
            result[f"{peer}_ratio"] = round(slow[peer]["p50"] / slow[HEADLINE]["p50"], 1)
    return result


def missed(result: Mapping[str, Any]) -> list[str]:
    """Each target that was measured and not met, and what is wrong whatever its speed."""
    found = []
    for name, limit in TARGETS.items():
        least = name.startswith("feast")
        if name in result and ((result[name] < limit) if least else (result[name] > limit)):
            found.append(f"{name} {result[name]}, wanted at {'least' if least else 'most'} {limit}")
    if result["serving"]["wrong_answers"]:
        found.append("answers differ from the reference encoding")
    asof = result.get("asof")
    if asof and (asof["wrong"] or asof["dropped"]):
        found.append("labels are wrong or dropped")
    return found


def table(result: Mapping[str, Any]) -> str:
    """As docs/benchmarks.md shows it."""
    served = result["serving"]
    lines = ["| side | CPU of the server's process | over the echo | p50 | p99 |", "|---|---|---|---|---|"]
    for name, slow in served["latency_ms"].items():
        cpu, ratio = served["cpu_ms"].get(name), served["cpu_ratio"].get(name)
        cells = [
            f"`{name}`",
            cell(cpu, 2, " ms"),
            cell(ratio, 2),
            f"{slow['p50']:.1f} ms",
            f"{slow['p99']:.1f} ms",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        f"\n{peer}: {result[f'{peer}_ratio']} times the p50 of {HEADLINE}"
        for peer in PEERS
        if f"{peer}_ratio" in result
    ]
    if "asof" in result:
        asof = result["asof"]
        lines.append(
            f"\nas-of join: {asof['asof_ms']['wall']} ms, the plain one {asof['plain_ms']['wall']} ms, ratio "
            f"{asof['ratio']}; dropped {asof['dropped']}, wrong {asof['wrong']}"
        )
    lines += [f"\nmissed: {one}" for one in result["missed"]]
    return "\n".join(lines)
