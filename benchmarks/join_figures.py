"""What rounds of a benchmark add up to: figures, the ratio, and what the targets say. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import Figure, figure

# A peer counts when it reads this many records a second of a core; below, it is set up badly or unfit.
HEALTHY_RECORDS_PER_S_CORE = 45_000
TARGET_ITEMS_PER_S_CORE = 100_000
TARGET_RATIO = 2.0


@dataclass(frozen=True)
class Round:
    """One reading of the whole log. ``cpu_s``: less what starting without anything to read takes."""

    cpu_s: float
    wall_s: float
    peak_mb: float


def speeds(rounds: Sequence[Round], records: int, items: int) -> dict[str, Figure]:
    """Records read and impressed items joined, per CPU second and by the wall."""
    return {
        "records_per_s_core": figure([records / r.cpu_s for r in rounds]),
        "joined_items_per_s_core": figure([items / r.cpu_s for r in rounds]),
        "records_per_s": figure([records / r.wall_s for r in rounds]),
        "peak_memory_mb": figure([r.peak_mb for r in rounds]),
    }


def ratio(ours: Sequence[Round], theirs: Sequence[Round]) -> Figure:
    """Joined items per CPU second, ours over theirs, of the rounds that stood next to each other."""
    return figure([b.cpu_s / a.cpu_s for a, b in zip(ours, theirs, strict=True)])


def net_cpu_s(used_s: float, idle_s: float) -> float:
    """What the log took. ValueError when starting alone took more than half: such a figure says nothing."""
    if used_s < 2 * idle_s:
        raise ValueError(f"{used_s:.2f} CPU s, of which {idle_s:.2f} without a log: the log is too short")
    return used_s - idle_s


def healthy(records_per_s_core: Figure) -> bool:
    """Whether a peer is fast enough to be compared with."""
    return records_per_s_core["median"] >= HEALTHY_RECORDS_PER_S_CORE


def job_figures(
    ours: Sequence[Round], theirs: Sequence[Round], records: int, join_rows: int, items: int
) -> dict[str, object]:
    """What one of the peer's jobs comes to.

    ``records`` are those read from Kafka, ``join_rows`` the rows that enter its left interval join: an
    impression is one record, and ten rows where each shown item is joined. The peer's health is said for both
    readings of a record."""
    given = speeds(theirs, records, items)
    rows = figure([join_rows / r.cpu_s for r in theirs])
    return {
        **given,
        "join_rows_per_s_core": rows,
        "healthy": healthy(given["records_per_s_core"]),
        "healthy_by_join_rows": healthy(rows),
        "ratio": ratio(ours, theirs),
    }


def verdict(ours: dict[str, Figure], peer: dict[str, Any]) -> dict[str, object]:
    """Each target and whether it holds; that of the ratio only against a healthy peer."""
    items = ours["joined_items_per_s_core"]["median"]
    counts = bool(peer["healthy"] or peer["healthy_by_join_rows"])
    return {
        "joined_items_per_s_core": {
            "at_least": TARGET_ITEMS_PER_S_CORE,
            "holds": items >= TARGET_ITEMS_PER_S_CORE,
        },
        "ratio": {
            "at_least": TARGET_RATIO,
            "flink_counts": counts,
            "holds": counts and peer["ratio"]["median"] >= TARGET_RATIO,
        },
    }
