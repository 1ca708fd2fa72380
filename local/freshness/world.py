"""The same question in the simulated world, which can stand still: drift or none, same arrivals.

A log of each world (``loadgen world-log``) is replayed like a real one, in event time behind barriers,
with arms by how often they are synchronised. Then its samples (features as they were served, the same in all
passes) say what a window is worth: models trained on the last 10 minutes only against the last 20 and all
(``trainer windows``), on the traffic that came next: too little data against data that is too old.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from local.chaos_kafka import read
from local.commands import run_loadgen
from local.errors import LocalError
from local.freshness.passes import Pass, Where, run_pass
from local.freshness.verdict import loop_failures, rows
from local.samples_topic import samples_table
from local.stack import Stack
from local.trainer_figures import trainer_figures
from local.up import say
from services.contract import topics
from services.contract.feature_sets import WORLD

# Name -> the speed at which tastes, trends and qualities move.
WORLDS = {"drift": 1.0, "still": 0.0}
BARRIER_S = 60
INTERVALS_S = (120, 300, 600, 1_200)
# 0: all before.
WINDOWS_S = (600, 1_200, 0)
EVERY_S = 300
LOG, SAMPLES = "log.parquet", "samples.parquet"
# Wall time of all passes at most; of the windows' models, about; and models of each window.
BUDGET_S, WINDOWS_TAKE_S, WINDOW_SEEDS = 500, 60, 3


@dataclass(frozen=True)
class Size:
    """How much of the world a run takes; ``seeds``: models of each world, when there is time."""

    rate: float
    duration_s: int
    seeds: int


FULL, QUICK = Size(1.2, 3_600, 3), Size(0.6, 1_560, 1)
# Small, so that ids are met often enough to be learned in an hour: a user comes every few minutes.
PLACE = (
    *("--sim.items", "2000", "--sim.users", "500"),
    *("--sim.births-per-s", "0.05", "--sim.user-births-per-s", "0.02"),
)


def run_world(where: Where, size: Size, left_s: float) -> tuple[dict[str, Any], list[dict[str, Any]]] | int:
    """(figures by world, all passes), or the status with which to end. Each seed's passes are made side by
    side; another seed begins only when it will be done within the budget, and within ``left_s``."""
    began = time.monotonic()
    folders = {name: where.folder / "world" / name for name in WORLDS}
    passes: dict[str, list[dict[str, Any]]] = {name: [] for name in WORLDS}
    for name, folder in folders.items():
        _write_log(WORLDS[name], folder / LOG, size)
    for seed in range(1, size.seeds + 1):
        if not in_budget(elapsed_s := time.monotonic() - began, seed - 1, left_s):
            say(f"world: no time for seed {seed}: {seed - 1} took {elapsed_s:.0f} s")
            break
        for name, folder in folders.items():
            say(f"world, {name}: seed {seed}, barriers every {BARRIER_S} s")
            found = _pass(seed, replace(where, folder=folder))
            if isinstance(found, int):
                return found
            passes[name].append(found)
    figures = {}
    for name, folder in folders.items():
        say(f"world, {name}: models of the last minutes only")
        figures[name] = {
            "rows": rows(passes[name]),
            **windows(folder / SAMPLES),
            "passes": [one["figures"] for one in passes[name]],
        }
    return figures, [one for made in passes.values() for one in made]


def in_budget(elapsed_s: float, done: int, left_s: float) -> bool:
    """Whether one more seed, as long as those that are done, ends within the budget, and leaves of ``left_s``
    what comes behind it. The first is made."""
    budget_s = min(BUDGET_S, left_s - WINDOWS_TAKE_S)
    return not done or elapsed_s * (done + 1) <= budget_s * done


def world_failures(world: Mapping[str, Any]) -> list[str]:
    """One line per claim that does not hold."""
    return [
        f"world, {name}: {problem}" for name in WORLDS for problem in loop_failures(world[name]["passes"])
    ]


def _write_log(drift: float, log: Path, size: Size) -> None:
    arguments = ["--drift", str(drift), "--rate", str(size.rate), "--duration-s", str(size.duration_s)]
    if code := run_loadgen(["world-log", *PLACE, *arguments, "--log", str(log)], os.environ):
        raise LocalError(f"loadgen world-log ended with status {code}; see its output above")


def _pass(seed: int, where: Where) -> dict[str, Any] | int:
    def keep_samples(stack: Stack) -> None:
        records = read(stack.addresses.kafka_bootstrap, [topics.SAMPLES], committed=True)
        table = samples_table(records, topics.SAMPLES.name)
        pq.write_table(table, where.folder / SAMPLES, compression="zstd")

    one = Pass(seed, BARRIER_S, INTERVALS_S, {"RECLOOP_FEATURE_SET": WORLD})
    return run_pass(where.folder / LOG, one, where, 0, keep_samples)


def windows(samples: Path) -> dict[str, Any]:
    """The figures of ``trainer windows``. Raises LocalError when it fails."""
    options = ["--samples", str(samples), "--every-s", str(EVERY_S), "--seeds", str(WINDOW_SEEDS)]
    options += [part for window_s in WINDOWS_S for part in ("--window-s", str(window_s))]
    return trainer_figures("windows", options)
