"""What the phases of bench_loop add up to: rows, CPU by process, and the table. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.calibration import Calibration
from benchmarks.closed_loop import Phase
from benchmarks.figures import cell, spread
from benchmarks.rows import row, table

OURS, BARE, ASSEMBLED = "ours", "bare", "assembled"
ALONE, MANY = 1, 8
# Below these a peer is not what it should be.
FLOOR_REQUESTS_PER_S = {BARE: 220.0, ASSEMBLED: 25.0}
# Of the open-loop run: what is not judged (Kafka's JVM compiles), and how long a window is (1,200 requests).
LOAD_WARM_UP_S, WINDOW_S = 20.0, 20.0
# Of its table by requests in progress: the last line, and what is too few for one.
MOST_IN_FLIGHT, FEWEST_REQUESTS = 8, 50

# By side and concurrency, the phases of the rounds in order.
Phases = Mapping[tuple[str, int], Sequence[Phase]]


def latencies(phases: Sequence[Phase], percent: float) -> list[float]:
    """A percentile of each phase, ms."""
    return [float(np.percentile(phase.latencies_ms, percent)) for phase in phases]


def rates(phases: Sequence[Phase]) -> list[float]:
    """Requests a second of each phase."""
    return [phase.requests_per_s for phase in phases]


def cpu_ms(phases: Sequence[Phase]) -> dict[str, dict[str, float]]:
    """By process, CPU milliseconds a request; ``servers``: of all but the client."""
    by_name = {
        name: [phase.cpu_s[name] * 1000 / len(phase.latencies_ms) for phase in phases]
        for name in phases[0].cpu_s
    }
    servers = [values for name, values in by_name.items() if name != "client"]
    by_name["servers"] = [sum(column) for column in zip(*servers, strict=True)]
    return {name: spread(values) for name, values in by_name.items()}


def sides(phases: Phases) -> dict[str, Any]:
    """By side and concurrency, what was measured."""
    return {
        f"{side}_{concurrency}": {
            "requests_per_s": spread(rates(of), 1),
            "p50_ms": spread(latencies(of, 50), 2),
            "p99_ms": spread(latencies(of, 99), 2),
            "cpu_ms_per_request": cpu_ms(of),
        }
        for (side, concurrency), of in phases.items()
    }


def compared(phases: Phases, here: Calibration) -> list[dict[str, Any]]:
    """The rows that have a peer: those of the peers that were there."""
    found = []
    healthy = {
        side: spread(rates(phases[side, MANY]))["median"] >= here.floor(floor)
        for side, floor in FLOOR_REQUESTS_PER_S.items()
        if (side, MANY) in phases
    }
    ours = rates(phases[OURS, MANY])
    if BARE in healthy:
        bare = rates(phases[BARE, MANY])
        found.append(row("loop_vs_bare_chain_rps", ours, bare, healthy=healthy[BARE]))
        alone = [latencies(phases[side, ALONE], 50) for side in (OURS, BARE)]
        found.append(row("loop_vs_bare_chain_p50", *alone, healthy=healthy[BARE]))
    if ASSEMBLED in healthy:
        peer = rates(phases[ASSEMBLED, MANY])
        found.append(row("loop_vs_assembled_stack_rps", ours, peer, healthy=healthy[ASSEMBLED]))
    return found


@dataclass(frozen=True)
class Timed:
    """What was measured when: microseconds of the wall, ascending or not, and milliseconds."""

    at_us: Sequence[int]
    took_ms: Sequence[float]

    def p99_by_window(self, begin_us: int, end_us: int) -> list[float]:
        """p99 of each window of WINDOW_S behind LOAD_WARM_UP_S; a run too short for one is one."""
        first_us = begin_us + int(LOAD_WARM_UP_S * 1e6)
        windows = int((end_us - first_us) / (WINDOW_S * 1e6))
        number = (np.asarray(self.at_us) - first_us) // int(WINDOW_S * 1e6)
        took = np.asarray(self.took_ms)
        parts = [took[number == each] for each in range(windows)] if windows > 0 else [took]
        return [float(np.percentile(part, 99)) for part in parts if len(part)]

    def by_in_flight(self) -> list[dict[str, float]]:
        """Of those that found 0, 1, ... others in progress: how many, p50 and p99. What a busy machine adds
        to each is the time between one line and the next."""
        began = np.asarray(self.at_us)
        took = np.asarray(self.took_ms)
        before = np.searchsorted(np.sort(began), began, side="left")
        others = before - np.searchsorted(np.sort(began + took * 1000), began, side="right")
        found = []
        for count in range(MOST_IN_FLIGHT + 1):
            part = took[others == count]
            if len(part) >= FEWEST_REQUESTS:
                p50, p99 = np.percentile(part, [50, 99]).round(1).tolist()
                found.append({"in_flight": count, "requests": len(part), "p50_ms": p50, "p99_ms": p99})
        return found


def under_load(demo: Mapping[str, Any], answers: Timed, applied: Timed) -> list[dict[str, Any]]:
    """The rows of the open-loop run: p99 of its ``answers`` and of its ``applied`` deltas by window, and the
    freshness of all of it (out/demo.json)."""
    span_us = min(answers.at_us), max(answers.at_us)
    return [
        row("loop_p99_ms_at_60rps", answers.p99_by_window(*span_us)),
        row("freshness_p50_s", [demo["freshness_s"]["p50"]]),
        row("freshness_p99_s", [demo["freshness_s"]["p99"]]),
        row("publish_to_applied_p99_ms", applied.p99_by_window(*span_us)),
    ]


def show(result: Mapping[str, Any]) -> str:
    """As docs/benchmarks.md shows it."""
    lines = [table(result["rows"]), ""]
    lines += [
        "| side | callers | requests/s | p50 | p99 | CPU of the servers a request |",
        "|---|---|---|---|---|---|",
    ]
    for name, of in result["sides"].items():
        side, _, callers = name.rpartition("_")
        cells = [
            f"`{side}`",
            callers,
            cell(of["requests_per_s"], 0),
            cell(of["p50_ms"], 1, " ms"),
            cell(of["p99_ms"], 1, " ms"),
            cell(of["cpu_ms_per_request"]["servers"], 2, " ms"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if queue := result["load"].get("by_in_flight"):
        lines += ["", "| in progress when it came | requests | p50 | p99 |", "|---|---|---|---|"]
        lines += [
            f"| {one['in_flight']} | {one['requests']:,} | {one['p50_ms']} ms | {one['p99_ms']} ms |"
            for one in queue
        ]
    for name, of in result["sides"].items():
        used = sorted(of["cpu_ms_per_request"].items(), key=lambda one: -one[1]["median"])
        said = ", ".join(f"{process} {one['median']:.2f}" for process, one in used if one["median"] >= 0.01)
        lines.append(f"\nCPU ms a request, {name}: {said}")
    return "\n".join(lines)
