"""The real loop beside the least that it could be: ``python -m benchmarks.bench_loop`` (docs/benchmarks.md).

1. The whole loop under an open-loop load, everything running: latency, freshness, publish -> applied.
2. Trainer and joiner paused, callers that ask again at once: the loop by turns with a bare chain of the same
   catalogue, features, model and payload widths (bare_chain), and with ``--peers PYTHON`` (`make
   bench-setup`) with the stack that one would put together from parts (assembled_stack). The loop stands
   still while a peer is measured.

Writes out/bench-loop.json; exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
from collections import Counter
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import uvloop

from benchmarks import loop_figures, loop_world, rows
from benchmarks.calibration import Calibration, calibrate
from benchmarks.closed_loop import Phase, closed_loop
from benchmarks.command import command_parser, leave
from benchmarks.loop_figures import ALONE, ASSEMBLED, BARE, MANY, OURS
from benchmarks.loop_sides import AssembledStack, BareChain, Loop, Side
from benchmarks.result import machine, versions
from local.commands import prepare, stack_config
from local.demo import LOAD_GRACE_S, Stage, await_load, staged
from local.errors import LocalError, StartFailed
from local.paths import REPOSITORY, RunPaths
from local.ports import Ports
from local.up import Interrupted

# Not measured, before each phase. The loop has just been let go: its lists are read anew once a second.
WARM_UP_S = {OURS: 1.5}
OTHER_WARM_UP_S = 0.5
# Answers that may be degraded, on a machine that does something else for a moment.
MAX_WRONG_SHARE = 0.01
# Of out/demo.json, kept beside the rows.
LOAD_FIGURES = (
    "requests", "errors", "unscored", "degraded", "late_sends",
    "latency_ms", "freshness_s", "freshness_stage_s",
)  # fmt: skip


def under_load(stage: Stage, rate: float, seconds: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is kept of an open-loop run, and its rows."""
    load = stage.start_load(rate, seconds)
    await_load(load, seconds + LOAD_GRACE_S)
    folder = stage.folder / "load"
    requests = pq.read_table(folder / "evidence" / "requests.parquet")
    answers = _took(requests.filter(pc.field("status") == "OK"), "intended_us", "answered_us")
    applied = pq.read_table(folder / "evidence" / "applied.parquet")
    # A base is applied too, and has no bytes.
    deltas = applied.filter((pc.field("arm") == loop_world.ARM) & (pc.field("bytes") > 0))
    demo = json.loads((folder / "demo.json").read_text())
    if not len(deltas) or demo["freshness_s"]["p99"] is None:
        raise StartFailed(
            "the load ended, and no click had come back in an answer: let it run longer (--load-s)"
        )
    rows_of = loop_figures.under_load(demo, answers, _took(deltas, "created_us", "applied_us"))
    return {name: demo[name] for name in LOAD_FIGURES} | {"by_in_flight": answers.by_in_flight()}, rows_of


def _took(table: pa.Table, began: str, ended: str) -> loop_figures.Timed:
    took_us = pc.subtract(table[ended], table[began]).to_numpy()
    return loop_figures.Timed(table[began].to_numpy(), took_us / 1000)


class Rounds:
    """All sides by turns; ``wrong``: by side and fault, answers that were not whole."""

    def __init__(self, loop: Loop, peers: dict[str, Side], seconds: float) -> None:
        self._loop = loop
        self._sides = {OURS: loop.side, **peers}
        self._seconds = seconds
        self.phases: dict[tuple[str, int], list[Phase]] = {}
        self.wrong: Counter[str] = Counter()
        self.looked_at = 0

    def run(self, rounds: int) -> None:
        """Every other round begins with the last side."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for number in range(rounds):
                names = list(self._sides) if number % 2 == 0 else list(reversed(self._sides))
                for concurrency in (ALONE, MANY):
                    for name in names:
                        self._note(name, runner.run(self._phase(name, concurrency)))

    async def _phase(self, name: str, concurrency: int) -> Phase:
        side = self._sides[name]
        with nullcontext() if name == OURS else self._loop.frozen():
            return await closed_loop(
                side.connect,
                side.request,
                side.pids,
                concurrency=concurrency,
                seconds=self._seconds,
                warm_up_s=WARM_UP_S.get(name, OTHER_WARM_UP_S),
            )

    def _note(self, name: str, phase: Phase) -> None:
        self.phases.setdefault((name, phase.concurrency), []).append(phase)
        faults = [fault for data in phase.looked_at if (fault := self._sides[name].wrong(data))]
        self.wrong.update(f"{name}: {fault}" for fault in faults)
        self.looked_at += len(phase.looked_at)
        p50 = statistics.median(phase.latencies_ms)
        said = f"{phase.requests_per_s:6.1f} requests/s, p50 {p50:5.1f} ms"
        print(f"  {name:<9} {phase.concurrency} at a time: {said}", file=sys.stderr, flush=True)


def closed(stage: Stage, given: argparse.Namespace) -> tuple[Rounds, Calibration]:
    """The rounds, and the calibration."""
    visits = loop_world.visits_of_world()
    world = stage.folder / "world.npz"
    loop_world.export(stage.stack, world, visits)
    loop = Loop(stage.stack, visits)
    with loop.paused(), ExitStack() as opened:
        bare = BareChain(world, visits.order, stage.folder)
        opened.callback(bare.close)
        peers = {BARE: bare.side}
        if given.peers:
            assembled = AssembledStack(given.peers, world, visits.order, stage.folder)
            opened.callback(assembled.close)
            peers[ASSEMBLED] = assembled.side
            print(f"  {assembled.said()}", file=sys.stderr)
        gc.freeze()
        with loop.frozen():
            here = calibrate()
        rounds = Rounds(loop, peers, given.seconds)
        rounds.run(given.rounds)
    return rounds, here


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Everything, with a stack of its own on free ports."""
    where = machine()
    folder = given.out.resolve() / "bench-loop"
    prepare("simulate")
    config = stack_config(RunPaths(folder / "run"), Ports.free(), "simulate", None, os.environ)
    with staged(folder, config) as stage:
        load: dict[str, Any] = {}
        found: list[dict[str, Any]] = []
        if given.load_s:
            load, found = under_load(stage, given.rate, given.load_s)
        rounds, here = closed(stage, given)
        memory = stage.stack.peak_memory_mb()
    return {
        "rows": [*loop_figures.compared(rounds.phases, here), *found],
        "sides": loop_figures.sides(rounds.phases),
        "calibration": vars(here),
        "load": load,
        "wrong": {"looked_at": rounds.looked_at, **rounds.wrong},
        "peak_memory_mb": memory,
        "rounds": given.rounds,
        "machine": where,
        "versions": versions("grpcio", "torch", "numpy", "aiokafka", "uvloop"),
    }


def main(argv: list[str]) -> int:
    parser = command_parser("bench_loop", __doc__)
    parser.add_argument("--peers", help="an interpreter that has FastAPI, faiss, Feast and torch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each phase; at most 5")
    parser.add_argument("--load-s", type=float, default=120.0, help="of the open-loop run; 0 = none")
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second of it")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out")
    given = parser.parse_args(argv)
    if not 0 < given.seconds <= 5:
        parser.error(f"--seconds {given.seconds}: above 0, at most 5: the loop stands still for so long")
    torch.set_num_threads(1)
    try:
        result = measure(given)
    except LocalError as error:
        print(f"bench-loop: {error}", file=sys.stderr)
        return 1
    except Interrupted:
        return 130
    result["missed"] = rows.missed(result["rows"])
    faults = sum(result["wrong"].values()) - result["wrong"]["looked_at"]
    if faults > MAX_WRONG_SHARE * result["wrong"]["looked_at"]:
        result["missed"].append(f"{faults} answers were not whole: {result['wrong']}")
    return leave("bench-loop", result, given.out, loop_figures.show(result))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
