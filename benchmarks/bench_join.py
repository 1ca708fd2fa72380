"""Speed of the join from Kafka to Kafka, with transactions, and of Flink SQL on the same log:
``python -m benchmarks.bench_join``.

The log of join_log is written to the three input topics; then the joiner and a Flink cluster of one slot
read it to its end, by turns. A joined item is an impressed item. The committed rows of both are compared in
every round. CPU seconds are those of the joiner's process and of Flink's task manager, less what either
takes without a log. Then the memory of the join is measured at a window of ten minutes. Writes
out/bench-join.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import shlex
import shutil
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks import flink_cluster, join_memory
from benchmarks.join_figures import Round, job_figures, speeds, verdict
from benchmarks.join_flink import JOBS, PEER, Flink
from benchmarks.join_log import SHOWN, write_log
from benchmarks.join_ours import BARRIER, Ours
from benchmarks.join_rows import Offsets, committed_rows, labels
from local.errors import LocalError
from local.kafka_server import KafkaServer
from local.paths import REPOSITORY
from services.contract import topics
from services.contract.join_events import SOURCES, Source

WINDOW_S, BOUND_S = 20, 2


class Unequal(Exception):
    """The two sides, or two rounds, wrote different rows."""


@dataclass
class Bench:
    """Both sides and what their rounds gave."""

    kafka: KafkaServer
    ours: Ours
    flink: Flink | None
    items: int
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    ends: Offsets = field(default_factory=dict)

    def round(self, number: int) -> None:
        """Ours, then each of Flink's jobs."""
        self._note("ours", number, self.ours.round(number))
        mine, self.ends = committed_rows(self.kafka.bootstrap, topics.SAMPLES, self.ends)
        if len(mine) != self.items or set(mine.values()) != {1}:
            raise Unequal(
                f"ours wrote {mine.total()} rows, {len(mine)} different ones, of {self.items} items"
            )
        if self.flink is None:
            return
        for job, kind in JOBS.items():
            whole = kind.reads_snapshots
            measured, theirs = self.flink.round(job, number)
            self._note(job, number, measured)
            require_equal(job, mine if whole else labels(mine), theirs if whole else labels(theirs))

    def _note(self, name: str, number: int, measured: Round) -> None:
        if number >= 0:
            self.rounds.setdefault(name, []).append(measured)
        said = f"round {number + 1}" if number >= 0 else "warm-up"
        print(f"  {said} {name:<9} {measured.cpu_s:6.1f} CPU s, {measured.wall_s:6.1f} s", flush=True)


def require_equal(job: str, ours: Counter[Any], theirs: Counter[Any]) -> None:
    """Unequal, with an example, unless both are the same rows."""
    if ours != theirs:
        more, less = theirs - ours, ours - theirs
        example = next(iter(more or less))
        raise Unequal(f"flink {job}: {more.total()} rows too many, {less.total()} missing, such as {example}")


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Everything that needs Kafka."""
    kafka = KafkaServer(folder / "kafka")
    kafka.start()
    flink = None
    try:
        kafka.create_topics()
        ours = Ours(folder, kafka.bootstrap, WINDOW_S, BOUND_S)
        print(f"an idle joiner starts with {ours.measure_idle():.1f} CPU s", flush=True)
        written = asyncio.run(write_log(kafka.bootstrap, arguments.requests, BARRIER))
        size = sum(size for _, size in written.values())
        print(f"{sum(n for n, _ in written.values()):,} records, {size / 1e6:,.0f} MB", flush=True)
        if not arguments.ours_only:
            checkpoint_s = arguments.checkpoint_s
            flink = Flink(folder / "flink", kafka.bootstrap, WINDOW_S, BOUND_S, checkpoint_s)
            flink.cluster.until_ready()
            for job in JOBS:
                flink.warm_up(job, arguments.warm_up)
                print(f"  flink {job}: {flink.idle_cpu_s[job]:.1f} CPU s without a log", flush=True)
        bench = Bench(kafka, ours, flink, arguments.requests * SHOWN)
        for number in range(-1, arguments.rounds):
            bench.round(number)
    finally:
        if flink is not None:
            flink.stop()
        kafka.stop()
    counts = {source: count for source, (count, _) in written.items()}
    return {
        "requests": arguments.requests,
        "records": sum(counts.values()),
        "input_mb": size / 1e6,
        **summary(bench.rounds, counts, bench.items),
    }


def summary(rounds: dict[str, list[Round]], counts: dict[Source, int], items: int) -> dict[str, object]:
    """Figures of both sides. ``flink`` and ``ratio`` are of the job that joins the shown items one by one."""
    every = sum(counts[source] for source in SOURCES)
    ours = speeds(rounds["ours"], every, items)
    if PEER not in rounds:
        return {"ours": ours}
    jobs = {}
    for job, kind in JOBS.items():
        read = every if kind.reads_snapshots else every - counts[Source.SNAPSHOTS]
        rows = kind.join_rows * items // SHOWN
        jobs[job] = {"records": read, **job_figures(rounds["ours"], rounds[job], read, rows, items)}
    return {
        "ours": ours,
        "flink": {"job": PEER, **jobs[PEER]},
        "ratio": jobs[PEER]["ratio"],
        "flink_jobs": jobs,
        "targets": verdict(ours, jobs[PEER]),
    }


def machine() -> dict[str, object]:
    """Where the figures come from."""
    return {
        "system": platform.platform(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_at_start": psutil.getloadavg()[0],
        "python": platform.python_version(),
    }


def show(result: dict[str, Any]) -> None:
    """The figures as lines."""
    sides = {"ours": result.get("ours", {})}
    sides |= {f"flink {job}": figures for job, figures in result.get("flink_jobs", {}).items()}
    for side, figures in sides.items():
        for name, figure in figures.items():
            if isinstance(figure, dict):
                spread = f"({figure['min']:,.1f} to {figure['max']:,.1f})"
                print(f"  {side:<20} {name:<24} median {figure['median']:>12,.1f}  {spread}")
    for name, target in result.get("targets", {}).items():
        print(f"  target {name}: {target}")
    if "memory" in result:
        memory = result["memory"]
        print(f"  memory {memory['formula']}; {memory['bytes']}")
        print(f"  memory predicted {memory['predicted_mb']:,.0f} MB; measured {memory['measured']}")


def main(argv: list[str]) -> int:
    """Measures, prints, writes. 1: no Flink here, the sides wrote different rows, or the log is too short."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_join", description=__doc__)
    parser.add_argument("--requests", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=3, help="unmeasured readings of each of Flink's jobs")
    parser.add_argument("--checkpoint-s", type=float, default=10.0, help="how often Flink commits")
    parser.add_argument("--ours-only", action="store_true", help="without Flink, which needs Maven and a JDK")
    parser.add_argument(
        "--memory", choices=("also", "only", "no"), default="also", help="memory at a ten-minute window"
    )
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out")
    arguments = parser.parse_args(argv)
    folder = arguments.out.resolve() / "bench-join"
    shutil.rmtree(folder, ignore_errors=True)
    target = arguments.out / "bench-join.json"
    result: dict[str, object] = {
        "machine": machine(),
        "command": shlex.join(["python", "-m", "benchmarks.bench_join", *argv]),
    }
    missing: LocalError | None = None
    if arguments.memory == "only":
        result = json.loads(target.read_text()) if target.is_file() else result
    else:
        if not arguments.ours_only:
            try:
                flink_cluster.build()
                result["versions"] = list(flink_cluster.versions())
            except LocalError as error:
                missing, arguments.ours_only = error, True
        try:
            result |= measure(arguments, folder)
        except (Unequal, ValueError) as error:
            print(f"bench-join: FAILED: {error}", file=sys.stderr)
            return 1
    if arguments.memory != "no":
        result["memory"] = join_memory.measure(BOUND_S)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    show(result)
    if missing is not None:
        print(f"bench-join: nothing to compare with: {missing}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
