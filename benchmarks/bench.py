"""Every benchmark, one after another, and all rows in one file: ``python -m benchmarks.bench --peers PYTHON``
(docs/benchmarks.md).

Each part is a command of its own that leaves out/bench-<part>.json; here are only its rows. Writes
out/bench.json: machine, versions and seconds by part, rows, what was missed. Exit code 1 when anything was
missed, or a part has no figures.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import rows
from benchmarks.command import command_parser, leave
from benchmarks.result import machine
from local.paths import REPOSITORY

Rows = list[dict[str, Any]]


def own_rows(result: Mapping[str, Any]) -> Rows:
    """Of a part that makes rows itself."""
    return list(result["rows"])


def join_rows(result: Mapping[str, Any]) -> Rows:
    """Of bench-join; without Flink only the first."""
    ours = result["ours"]["joined_items_per_s_core"]
    found = [rows.judged("join_items_per_s_core", ours)]
    if "flink" in result:
        peer = result["flink"]
        counts = peer["healthy"] or peer["healthy_by_join_rows"]
        speed = peer["joined_items_per_s_core"]
        found.append(rows.judged("join_vs_flink_sql", ours, speed, result["ratio"], healthy=counts))
    return found


def features_rows(result: Mapping[str, Any]) -> Rows:
    """Of bench-features; without Feast only the first."""
    served = result["serving"]
    cpu = served["cpu_ms"]
    found = [rows.judged("features_vs_echo_cpu", cpu["live"], cpu["echo"], served["cpu_ratio"]["live"])]
    p50 = {name: _one(slow["p50"]) for name, slow in served["latency_ms"].items()}
    for peer in ("feast", "feast_array"):
        if peer in p50:
            ratio = _one(result[f"{peer}_ratio"])
            found.append(rows.judged(f"features_vs_{peer}_p50", p50["live"], p50[peer], ratio))
    if "asof" in result:
        asof = result["asof"]
        ours, plain = _one(asof["asof_ms"]["wall"]), _one(asof["plain_ms"]["wall"])
        found.append(rows.judged("features_asof_vs_plain", ours, plain, _one(asof["ratio"])))
    return found


def _one(value: float) -> dict[str, float]:
    return {"median": value, "min": value, "max": value}


@dataclass(frozen=True)
class Part:
    """A benchmark, its arguments (``--peers`` is added where it takes them), and how its rows are read."""

    arguments: tuple[str, ...] = ()
    peers: bool = False
    read: Callable[[Mapping[str, Any]], Rows] = own_rows


# Rounds such that all of it takes less than 40 minutes.
PARTS = {
    "loop": Part(peers=True),
    "trainer": Part(peers=True),
    "ranking": Part(),
    "collector": Part(),
    "features": Part(("--rounds", "5", "--requests", "200"), peers=True, read=features_rows),
    "join": Part(("--rounds", "3", "--memory", "no"), read=join_rows),
}


def run(name: str, part: Part, peers: str | None) -> dict[str, Any] | None:
    """A part's result file; None when it left none."""
    command = [sys.executable, "-m", f"benchmarks.bench_{name}", *part.arguments]
    if part.peers and peers:
        command += ["--peers", peers]
    target = REPOSITORY / "out" / f"bench-{name}.json"
    target.unlink(missing_ok=True)
    print(f"bench: {shlex.join(command[1:])}", file=sys.stderr, flush=True)
    subprocess.run(command, cwd=REPOSITORY, check=False)
    return json.loads(target.read_text()) if target.is_file() else None


def summary(results: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    """Rows of all parts in order, and what was missed; a part without figures is missed."""
    found = [row for name, result in results.items() if result for row in PARTS[name].read(result)]
    silent = [f"{name}: no figures" for name, result in results.items() if not result]
    wrong = [
        f"{name}: {one}"
        for name, result in results.items()
        for one in (result or {}).get("missed", ())
        if one not in rows.missed(found)
    ]
    return {
        "versions": {name: result.get("versions") for name, result in results.items() if result},
        "rows": found,
        "missed": [*rows.missed(found), *wrong, *silent],
    }


def main(argv: Sequence[str]) -> int:
    parser = command_parser("bench", __doc__)
    parser.add_argument("--peers", help="the interpreter of the peers (make bench-setup)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts")
    given = parser.parse_args(argv)
    where, seconds = machine(), {}
    results: dict[str, dict[str, Any] | None] = {}
    for name in given.only:
        began = time.monotonic()
        results[name] = run(name, PARTS[name], given.peers)
        seconds[name] = round(time.monotonic() - began)
    result = {"machine": where, "seconds": seconds, **summary(results)}
    took = f"{sum(seconds.values()) / 60:.0f} minutes: {seconds}"
    return leave("bench", result, REPOSITORY / "out", f"{rows.table(result['rows'])}\n\n{took}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
