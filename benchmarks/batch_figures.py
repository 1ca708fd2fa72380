"""What runs of the batch benchmark add up to: figures, speed-ups, misses, and the table. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import cell, spread

MAX_AUC_DIFFERENCE = 0.002
_SECONDS = ("wall_s", "pass_s", "cpu_s")
TWO, ONE, THREADS = "two_processes", "one_process", "one_process_two_threads"
SIDES = {
    ONE: "1 process, 1 thread",
    THREADS: "1 process, 2 threads",
    TWO: "torchrun, 2 processes of 1 thread",
}


@dataclass(frozen=True)
class Run:
    """One run of the command. ``wall_s``: all of it, its start too; ``pass_s``: a pass behind the first;
    ``cpu_s``: of all its processes; ``digest``: of the model."""

    wall_s: float
    pass_s: float
    cpu_s: float
    auc: float
    passes: int
    digest: str


Runs = Mapping[str, Sequence[Run]]


def figures(runs: Runs) -> dict[str, Any]:
    """By side its figures; speed-ups of two processes are those of neighbouring runs."""
    sides = {
        name: {
            "wall_s": spread([one.wall_s for one in of], 2),
            "pass_s": spread([one.pass_s for one in of], 2),
            "cpu_s": spread([one.cpu_s for one in of], 2),
            "auc": spread([one.auc for one in of], 5),
            "passes": of[0].passes,
            "same_bits": len({one.digest for one in of}) == 1,
        }
        for name, of in runs.items()
    }
    speed_up = {
        f"over_{peer}": {
            part: spread([getattr(a, part) / getattr(b, part) for a, b in zip(of, runs[TWO], strict=True)], 2)
            for part in ("wall_s", "pass_s")
        }
        for peer, of in runs.items()
        if peer != TWO
    }
    apart = max(abs(a.auc - b.auc) for of in runs.values() for a, b in zip(of, runs[TWO], strict=True))
    return {"sides": sides, "speed_up": speed_up, "auc_difference": round(apart, 6)}


def missed(result: Mapping[str, Any]) -> list[str]:
    """What must hold at any speed."""
    found = [] if result["auc_difference"] < MAX_AUC_DIFFERENCE else [f"auc {result['auc_difference']} apart"]
    found += [f"{name}: other bits each time" for name, of in result["sides"].items() if not of["same_bits"]]
    return found


def table(result: Mapping[str, Any]) -> str:
    """As docs/benchmarks.md shows it."""
    lines = ["| side | AUC | whole command | one pass | CPU |", "|---|---|---|---|---|"]
    for name, of in result["sides"].items():
        cells = [SIDES[name], f"{of['auc']['median']:.4f}", *(cell(of[part], 1, " s") for part in _SECONDS)]
        lines.append(f"| {' | '.join(cells)} |")
    for name, of in result["speed_up"].items():
        times = {part: f"{one['median']} ({one['min']} to {one['max']})" for part, one in of.items()}
        lines.append(f"\n{name}: a pass {times['pass_s']} times as fast, the command {times['wall_s']}")
    lines += [f"\nmissed: {one}" for one in result["missed"]]
    return "\n".join(lines)
