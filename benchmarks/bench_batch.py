"""``trainer batch`` by two processes under torchrun beside one: ``python -m benchmarks.bench_batch``
(docs/benchmarks.md).

The same day (day 0 of the simulated world, a few hundred thousand samples) is trained to the same end by
turns, each run into a store of its own. Writes out/bench-batch.json; exit code 1 when the AUCs differ by
0.002 or more, or a side gives another model each time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import batch_figures
from benchmarks.batch_figures import ONE, THREADS, TWO, Run
from benchmarks.batch_lake import Day, write_day
from benchmarks.result import machine, write
from local.paths import REPOSITORY
from local.processes import RUNTIME

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
# By side: what stands before ``-m trainer``, and threads of all its processes together.
COMMANDS: dict[str, tuple[list[str], int]] = {ONE: ([], 1), THREADS: ([], 2), TWO: (TORCHRUN, 2)}


def run(side: str, day: Day, store: Path) -> Run:
    """One run. Raises CalledProcessError with what it said on stderr."""
    before, threads = COMMANDS[side]
    command = [
        sys.executable, *before, "-m", "trainer", "batch", "--day", day.day, "--lake_uri", str(day.lake),
        "--model_store_uri", str(store), "--register_model", "false", "--threads", str(threads),
    ]  # fmt: skip
    # Threads are what the command is told: RUNTIME keeps those of numpy's libraries out. The ranks meet on
    # the loopback, as torchrun's own store does.
    environment = {**os.environ, **RUNTIME, "GLOO_SOCKET_IFNAME": LOOPBACK}
    used_s, began = _cpu_s(), time.monotonic()
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    wall_s, cpu_s = time.monotonic() - began, _cpu_s() - used_s
    manifest = json.loads(Path(done.stdout.split()[-1]).read_text())
    kept = sorted(path.stat().st_mtime for path in store.glob("batch/*/pass-*.json"))
    metrics = manifest["metrics"]
    return Run(
        wall_s=wall_s,
        pass_s=(kept[-1] - kept[0]) / (len(kept) - 1),
        cpu_s=cpu_s,
        auc=metrics["auc"],
        passes=int(metrics["passes"]),
        digest=manifest["digest"],
    )


def _cpu_s() -> float:
    """Of all that has ended below this process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--session-s", type=float, default=45.0, help="length of day 0's twelve windows")
    given = parser.parse_args()
    runs: dict[str, list[Run]] = {side: [] for side in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="bench-batch-") as name:
        day = write_day(Path(name) / "lake", given.session_s)
        for number in range(given.rounds):
            for side, done in runs.items():
                done.append(run(side, day, Path(name) / f"{side}-{number}"))
                print(
                    f"round {number + 1}, {side}: {done[-1].wall_s:.1f} s, AUC {done[-1].auc:.4f}",
                    file=sys.stderr,
                )
    result = {"rows": day.rows, "rounds": given.rounds, **batch_figures.figures(runs)}
    result["missed"] = batch_figures.missed(result)
    result["machine"] = {**machine(), "torch": torch.__version__}
    write("bench-batch", result)
    print(batch_figures.table(result))
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
