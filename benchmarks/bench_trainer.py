"""Speed and memory of the online trainer: ``python -m benchmarks.bench_trainer --peers PYTHON``
(docs/benchmarks.md).

A step of ours (rows found by id, admission, prediction, gradients of ranking and recall, row-wise Adagrad,
all checks, touched set) by turns with FBGEMM's fused row-wise Adagrad on the same batches; rows found a
second by the table of ids; memory beside weights and optimizer state. One thread each. PYTHON: an interpreter
that has FBGEMM (`make bench-setup`); without it only ours. Writes out/bench-trainer.json; exit code 1 when a
target is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import rows
from benchmarks.calibration import calibrate
from benchmarks.command import command_parser, leave
from benchmarks.figures import spread
from benchmarks.peer import foreign
from benchmarks.result import machine, versions
from benchmarks.trainer_traffic import ROWS, Sizes, Traffic
from local.paths import REPOSITORY
from local.processes import RUNTIME
from services.contract import id_table
from services.contract.id_table import IdTable
from services.contract.model_state import ModelState
from trainer.samples import Batch
from trainer.settings import AdmissionSettings, LearningSettings
from trainer.step import train_step
from trainer.touched import Touched

# Below this the peer is not what it should be.
FLOOR_SAMPLES_PER_S = 100_000
LOOKED_UP = 100_000
# Steps between two deltas, with which the touched set is emptied.
PUBLISH_EVERY = 4


class Ours:
    """Steps on a state; ``recall``: with recall's softmax."""

    def __init__(self, state: ModelState, *, recall: bool) -> None:
        self._state, self._touched = state, Touched()
        self._learning = LearningSettings() if recall else LearningSettings(recall_positives=0)
        self._admission = AdmissionSettings()

    def train(self, batches: list[Batch]) -> float:
        """Seconds of these steps; ValueError when one was not taken."""
        began = time.perf_counter()
        for number, batch in enumerate(batches):
            result = train_step(self._state, batch, self._learning, self._admission)
            if result.skipped:
                raise ValueError(f"step {number} was skipped: {result.skipped}")
            for name, (changed, pending) in result.touched.items():
                self._touched.touch(name, changed, pending)
            if number % PUBLISH_EVERY == 0:
                self._touched.begin()
                self._touched.ack()
        return time.perf_counter() - began


def steps(given: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """By side, samples a second of each round, sides by turns."""
    traffic = Traffic(Sizes(given.users, given.items, given.batches))
    sides = {
        "ours": Ours(traffic.state(), recall=True),
        "ours_without_recall": Ours(traffic.state(), recall=False),
    }
    train: dict[str, Callable[[list[Batch]], float]] = {name: side.train for name, side in sides.items()}
    peer = None
    if given.peers:
        traffic.write(folder / "batches.npz")
        peer = foreign("trainer_fbgemm", given.peers, [str(folder / "batches.npz"), "1"], folder, RUNTIME)
        print(f"FBGEMM on {peer.version}", file=sys.stderr)
        train["fbgemm"] = lambda _batches: peer.ask("train")[0]
    found: dict[str, list[float]] = {name: [] for name in train}
    for number in range(-1, given.rounds):
        batches = traffic.batches(number + 1)
        for name, run in train.items():
            rate = len(batches) * ROWS / run(batches)
            if number >= 0:
                found[name].append(rate)
    if peer is not None:
        peer.close()
    return found


def lookups(ids: int, rounds: int) -> list[float]:
    """Ids a second, of a table of ``ids`` rows that is asked for LOOKED_UP of them in any order."""
    rng = np.random.default_rng(3)
    held = rng.integers(1, 2**63, ids, dtype=np.uint64)
    table = IdTable(ids)
    table.insert(held)
    rates = []
    for _ in range(rounds):
        asked = [rng.choice(held, LOOKED_UP) for _ in range(20)]
        began = time.perf_counter()
        for one in asked:
            table.lookup(one)
        rates.append(len(asked) * LOOKED_UP / (time.perf_counter() - began))
    return rates


def memory(table_rows: int, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """What the probe says: of a trainer that writes a base, of one that starts from it."""
    command = [sys.executable, "-m", "benchmarks.trainer_memory_probe", str(folder)]
    said = [
        subprocess.run([*command, *more], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
        for more in ([str(table_rows)], [])
    ]
    writing, starting = (json.loads(done.stdout) for done in said)
    return writing, starting


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures."""
    where, here = machine(), calibrate()
    found = steps(given, folder)
    result: list[dict[str, Any]] = []
    if "fbgemm" in found:
        healthy = spread(found["fbgemm"])["median"] >= here.floor(FLOOR_SAMPLES_PER_S)
        result.append(rows.row("trainer_vs_fbgemm", found["ours"], found["fbgemm"], healthy=healthy))
    result.append(rows.row("lookup_ids_per_s", lookups(given.ids, max(given.rounds, 5))))
    held, again = memory(given.memory_rows, folder)
    parameters = held["parameters"]
    grown = {name: held[name] - held["idle"] for name in ("steady", "peak")}
    grown["starting"] = again["peak"] - again["idle"]
    most = max(grown.values())
    result.append(rows.row("trainer_memory_ratio", [most / 1e6], [parameters / 1e6]))
    return {
        "rows": result,
        "samples_per_s": {name: spread(of, 0) for name, of in found.items()},
        "memory_mb": {name: round(held[name] / 1e6, 1) for name in ("idle", "steady", "peak", "parameters")},
        "memory_ratios": {name: round(of / parameters, 2) for name, of in grown.items()},
        "base": {name: held[name] for name in ("rows", "rows_kept", "freeze_ms")},
        "rounds": given.rounds,
        "calibration": vars(here),
        "machine": where,
        "versions": versions("torch", "numpy", "numba"),
    }


def main(argv: list[str]) -> int:
    parser = command_parser("bench_trainer", __doc__)
    parser.add_argument("--peers", help="an interpreter that has fbgemm-gpu-cpu")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=24, help="of each side a round, of 4,096 rows")
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--ids", type=int, default=1_000_000, help="in the table that is asked")
    parser.add_argument("--memory-rows", type=int, default=2_000_000, help="held when memory is taken")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    id_table.warm_up()
    with tempfile.TemporaryDirectory(prefix="bench-trainer-") as name:
        result = measure(given, Path(name))
    result["missed"] = rows.missed(result["rows"])
    speeds = [
        f"{name}: {of['median']:,.0f} samples/s ({of['min']:,.0f} to {of['max']:,.0f})"
        for name, of in result["samples_per_s"].items()
    ]
    return leave("bench-trainer", result, given.out, "\n\n".join([rows.table(result["rows"]), *speeds]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
