"""How cost grows: ``python -m benchmarks.bench_scale`` (docs/benchmarks.md).

Curves of the pieces themselves, in one process and one thread each, at growing sizes: a request's candidates,
the catalogue's items (through all of them and in lists, and where the two cross), a table's rows, a delta's
touched rows, the join's partitions and processes. Then what 1,000 requests/s carry between the services and
to Kafka, and what a row holds, from the messages and tables. Writes out/bench-scale.json; ``--docs`` writes
the tables into docs/benchmarks.md. Exit code 1 when recall in lists is below what is promised.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import scale_figures, scale_request, scale_sizing, scale_state
from benchmarks.calibration import calibrate
from benchmarks.command import command_parser, leave
from benchmarks.result import machine, versions
from benchmarks.scale_figures import Curve, Point
from local.paths import REPOSITORY
from services.contract import id_table
from services.recall import item_lists
from services.recall.list_watch import PROMISED_RECALL

DOCS = REPOSITORY / "docs" / "benchmarks.md"
MARKED = re.compile(r"(<!-- scale -->\n).*?(\n<!-- /scale -->)", re.S)
CURVES: dict[str, Curve] = {
    "candidates": scale_request.OF_CANDIDATES,
    "items": scale_request.OF_ITEMS,
    "rows": scale_state.OF_ROWS,
    "deltas": scale_state.OF_DELTAS,
    "partitions": scale_state.OF_PARTITIONS,
    "processes": scale_state.OF_REPLICAS,
}
# More do not fit into the 8 MB of a delta.
MAX_DELTA_ROWS = 30_000


def sizes(smallest: int, largest: int) -> list[int]:
    """1, 3, 10, 30, ... times the smallest, up to the largest."""
    found, step = [], smallest
    while step <= largest:
        found += [of for of in (step, 3 * step) if of <= largest]
        step *= 10
    return found


def measure(given: argparse.Namespace) -> dict[str, list[Point]]:
    """All curves, by name."""
    seconds = given.point_s
    points = {
        "rows": scale_state.of_rows(sizes(10_000, given.rows), seconds),
        "candidates": scale_request.of_candidates(sizes(100, given.candidates), seconds, given.known_items),
        "items": scale_request.of_items(sizes(10_000, given.items), seconds),
        "deltas": scale_state.of_deltas([0, *sizes(100, given.delta_rows)], given.known_rows),
        "partitions": scale_state.of_partitions([1, 2, 4, 8], given.requests),
        "processes": scale_state.of_replicas([1, 2], given.requests),
    }
    found: dict[str, list[Point]] = {}
    for name, curve in points.items():
        began = time.perf_counter()
        found[name] = list(curve)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return {name: found[name] for name in CURVES}


def missed(found: dict[str, list[Point]]) -> list[str]:
    """Recall below what is promised."""
    return [
        f"recall {point['recall']} with {point['x']:,} items"
        for point in found["items"]
        if point.get("recall", 1.0) < PROMISED_RECALL
    ]


def text(result: dict[str, Any]) -> str:
    """Markdown of everything."""
    parts = [scale_figures.table(curve, result["curves"][name]) for name, curve in CURVES.items()]
    crossing = result["lists_pay_from_items"]
    said = "Lists never pay here." if crossing is None else f"Lists pay from {crossing:,.0f} items on."
    parts.insert(2, said)
    return "\n\n".join([*parts, scale_sizing.table(result["sizing"])])


def main(argv: list[str]) -> int:
    parser = command_parser("bench_scale", __doc__)
    parser.add_argument("--point-s", type=float, default=1.0, help="measured of each figure")
    parser.add_argument("--candidates", type=int, default=10_000, help="of a request, at most")
    parser.add_argument("--items", type=int, default=1_000_000, help="of the catalogue, at most")
    parser.add_argument("--rows", type=int, default=10_000_000, help="of a table, at most")
    parser.add_argument("--delta-rows", type=int, default=MAX_DELTA_ROWS, help="touched, at most")
    parser.add_argument("--known-items", type=int, default=100_000, help="that candidates are taken from")
    parser.add_argument("--known-rows", type=int, default=1_000_000, help="that deltas change")
    parser.add_argument("--requests", type=int, default=20_000, help="of the join's log")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/benchmarks.md")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out")
    given = parser.parse_args(argv)
    if not 0 < given.delta_rows <= MAX_DELTA_ROWS:
        parser.error(f"--delta-rows {given.delta_rows}: 1 to {MAX_DELTA_ROWS}")
    torch.set_num_threads(1)
    id_table.warm_up()
    item_lists.warm_up()
    began, where, here = time.perf_counter(), machine(), calibrate()
    found = measure(given)
    result: dict[str, Any] = {
        "curves": found,
        "lists_pay_from_items": scale_figures.crossover(found["items"], "all_ms", "lists_ms"),
        "sizing": scale_sizing.sizing(scale_sizing.links()),
        "calibration": vars(here),
        "machine": where,
        "versions": versions("numpy", "numba", "torch"),
        "seconds": round(time.perf_counter() - began),
        "missed": missed(found),
    }
    said = text(result)
    if given.docs:
        DOCS.write_text(MARKED.sub(lambda marks: f"{marks[1]}{said}{marks[2]}", DOCS.read_text()))
    return leave("bench-scale", result, given.out, said)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
