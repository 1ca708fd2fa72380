"""Rows of out/bench.json: what was promised, what was measured, whether it holds. Pure.

``ours``, ``peer``: median, min, max of the rounds, in the unit of the row. ``ratio``: of neighbouring rounds,
ours over the peer's; null where the promise is a number and not a comparison. ``holds``: null when the peer
was below its own floor, because a ratio to a peer that limps says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import spread


@dataclass(frozen=True)
class Target:
    """What the judged figure, the ratio's median or else ours, must reach: at ``least``, or at most."""

    limit: float
    unit: str
    least: bool = False

    def holds(self, value: float) -> bool:
        """Whether a figure reaches it."""
        return value >= self.limit if self.least else value <= self.limit

    def __str__(self) -> str:
        return f"at {'least' if self.least else 'most'} {self.limit:,g}"


TARGETS = {
    "loop_vs_bare_chain_rps": Target(0.95, "requests/s", least=True),
    "loop_vs_bare_chain_p50": Target(1.0, "ms"),
    "loop_vs_assembled_stack_rps": Target(8, "requests/s", least=True),
    "loop_p99_ms_at_60rps": Target(25, "ms"),
    "freshness_p50_s": Target(0.8, "s"),
    "freshness_p99_s": Target(2.0, "s"),
    "publish_to_applied_p99_ms": Target(100, "ms"),
    "trainer_vs_fbgemm": Target(0.8, "samples/s", least=True),
    "lookup_ids_per_s": Target(10e6, "ids/s", least=True),
    "trainer_memory_ratio": Target(2.5, "MB"),
    "rank_p99_with_deltas": Target(1.05, "ms"),
    "rank_p99_full_swap": Target(1.2, "ms"),
    "ranking_memory_ratio": Target(1.3, "MB"),
    "collector_vs_bare_producer": Target(0.7, "events/s", least=True),
    "join_items_per_s_core": Target(100_000, "items/s", least=True),
    "join_vs_flink_sql": Target(2, "items/s", least=True),
    "features_vs_echo_cpu": Target(1.5, "ms"),
    "features_vs_feast_p50": Target(50, "ms", least=True),
    "features_vs_feast_array_p50": Target(20, "ms", least=True),
    "features_asof_vs_plain": Target(2, "ms"),
}


def row(
    name: str,
    ours: Sequence[float],
    peer: Sequence[float] = (),
    *,
    healthy: bool = True,
    inverse: bool = False,
) -> dict[str, Any]:
    """One row. ``peer``: of the same rounds in the same order; none: ours is judged by itself. ``inverse``:
    the ratio is the peer's over ours (how many times faster, of times)."""
    pairs = zip(peer, ours, strict=True) if inverse else zip(ours, peer, strict=True)
    ratio = spread([a / b for a, b in pairs]) if peer else None
    return judged(name, spread(ours), spread(peer) if peer else None, ratio, healthy=healthy)


def judged(
    name: str,
    ours: dict[str, float],
    peer: dict[str, float] | None = None,
    ratio: dict[str, float] | None = None,
    *,
    healthy: bool = True,
) -> dict[str, Any]:
    """A row of figures that are there already."""
    target = TARGETS[name]
    value = (ratio or ours)["median"]
    return {
        "name": name,
        "unit": target.unit,
        "ours": ours,
        "peer": peer,
        "ratio": ratio,
        "target": str(target),
        "holds": target.holds(value) if healthy else None,
    }


def missed(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What did not hold, or could not be judged, in a line each."""
    found = []
    for one in rows:
        value = (one["ratio"] or one["ours"])["median"]
        if one["holds"] is None:
            found.append(f"{one['name']}: the peer is not healthy, {value:g} says nothing")
        elif not one["holds"]:
            found.append(f"{one['name']} {value:g}, wanted {one['target']}")
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As docs/benchmarks.md shows it."""
    lines = ["| row | ours | peer | ratio | wanted | holds |", "|---|---|---|---|---|---|"]
    for one in rows:
        figures = [_cell(one[part], one["unit"]) for part in ("ours", "peer")]
        holds = {True: "yes", False: "no", None: "peer not healthy"}[one["holds"]]
        cells = [f"`{one['name']}`", *figures, _cell(one["ratio"], ""), one["target"], holds]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(one: dict[str, float] | None, unit: str) -> str:
    if one is None:
        return ""
    said = f"{one['median']:,.4g} {unit}".rstrip()
    return said if one["min"] == one["max"] else f"{said} ({one['min']:,.4g} to {one['max']:,.4g})"
