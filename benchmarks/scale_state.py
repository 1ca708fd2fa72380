"""How the model's tables, its deltas and the join grow: the contract's own pieces, one thread each."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
import psutil

from benchmarks.figures import spread
from benchmarks.ranking_chain import Writer
from benchmarks.scale_figures import Curve, Point, timed
from benchmarks.scale_sizing import table_bytes
from benchmarks.trainer_traffic import Sizes, Traffic
from local.paths import REPOSITORY
from services.contract import delta, model_state
from services.contract.model_state import ModelState
from services.contract.model_store import SavedBase
from services.contract.model_table import TableState
from trainer.rows import initial_rows

LOOKED_UP, _ASKED = 1_000, 100_000
_FILLED_AT_ONCE = 100_000
ROUNDS = 5

OF_ROWS = Curve(
    "Rows of a table",
    "rows",
    {
        "lookup_mids_per_s": "found by id, million/s",
        "gather_us": "1,000 rows gathered, us",
        "bytes_per_row": "resident bytes a row",
        "formula": "by formula",
    },
    ("gather_us",),
)
OF_DELTAS = Curve(
    "Touched rows of a delta (with all dense tensors)",
    "rows",
    {
        "kb": "KB",
        "seal_ms": "sealed by the trainer, ms",
        "open_ms": "verified and read, ms",
        "apply_ms": "applied between two requests, ms",
    },
    ("seal_ms", "open_ms", "apply_ms"),
)
OF_PARTITIONS = Curve(
    "Partitions of the join in one process",
    "partitions",
    {"records_per_s": "records/s of a core"},
    (),
)
OF_REPLICAS = Curve(
    "Processes of the join, a partition each", "processes", {"records_per_s": "records/s, all together"}, ()
)


def of_rows(sizes: Sequence[int], seconds: float) -> Iterator[Point]:
    """One table with weights, optimizer, counts and times."""
    for rows in sizes:
        yield _rows_point(rows, seconds)


def _rows_point(rows: int, seconds: float) -> Point:
    rng, process = np.random.default_rng(rows), psutil.Process()
    before, table = process.memory_info().rss, TableState()
    for start in range(0, rows, _FILLED_AT_ONCE):
        # At random: multiples of a constant meet the table's own hashing, for better or worse.
        ids = rng.integers(1, 2**63, min(_FILLED_AT_ONCE, rows - start), dtype=np.uint64)
        n, slots = len(ids), table.add(ids)
        ones = np.ones((n, 2), np.float32), np.ones(n, np.uint32), np.ones(n, np.int64)
        table.write(slots, initial_rows(ids, "item", 0.1), *ones)
    held = (process.memory_info().rss - before) / rows
    known = table.ids()[0]
    many = itertools.cycle(rng.choice(known, (20, _ASKED)))
    few = itertools.cycle(rng.choice(known, (1_000, LOOKED_UP)))
    found = timed(lambda: table.slots(next(many)), seconds)
    return {
        "x": rows,
        "lookup_mids_per_s": spread([_ASKED / of / 1e3 for of in found.values()], 1),
        "gather_us": timed(lambda: table.rows[table.slots(next(few))], seconds / 2, 1e6),
        "bytes_per_row": round(held, 1),
        "formula": round(table_bytes(rows) / rows, 1),
    }


def of_deltas(sizes: Sequence[int], rows: int) -> Iterator[Point]:
    """A chain on a state of so many items and a fifth as many users."""
    state = Traffic(Sizes(users=rows // 5, items=rows, batches=1)).state()
    start = SavedBase("", state.chain_hash, 1, "online", 0, 0, state.chain_hash, 0, 0, {})
    for size in sizes:
        state.sequence, state.chain_hash = 0, start.manifest_digest
        writer = Writer(state, start, size)
        took: dict[str, list[float]] = {"seal_ms": [], "open_ms": [], "apply_ms": []}
        for number in range(ROUNDS + 1):
            times, size_bytes = _delta(state, writer)
            for name, of in times.items():
                took[name] += [of] if number else []
        yield {"x": size, "kb": size_bytes / 1e3} | {name: spread(of) for name, of in took.items()}


def _delta(state: ModelState, writer: Writer) -> tuple[dict[str, float], int]:
    """One delta through the chain: milliseconds of each step, bytes."""
    made = delta.open_body(delta.unseal(value := writer.next()))
    header = delta.unseal(value).header
    marks = [time.perf_counter()]
    delta.seal(header, made)
    marks.append(time.perf_counter())
    sealed = delta.unseal(value)
    body = delta.open_body(sealed)
    marks.append(time.perf_counter())
    model_state.apply(state, sealed.header, body, sealed.hash)
    marks.append(time.perf_counter())
    names = ("seal_ms", "open_ms", "apply_ms")
    return dict(zip(names, (np.diff(marks) * 1e3).tolist(), strict=True)), len(value)


def of_partitions(sizes: Sequence[int], requests: int) -> Iterator[Point]:
    """By turns over so many partitions, each with its own state."""
    for partitions in sizes:
        rates = [_join(1, partitions, requests) for _ in range(3)]
        yield {"x": partitions, "records_per_s": spread(rates, 0)}


def of_replicas(sizes: Sequence[int], requests: int) -> Iterator[Point]:
    """Side by side; with more of them than cores they share."""
    for processes in sizes:
        yield {
            "x": processes,
            "records_per_s": spread([_join(processes, 1, requests) for _ in range(3)], 0),
        }


def _join(processes: int, partitions: int, requests: int) -> float:
    """Records a second of all processes together: of their CPU where it is one, of the slowest's wall time
    else."""
    command = [sys.executable, "-m", "benchmarks.scale_join", str(partitions), str(requests)]
    running = [
        subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for one in running:
        assert one.stdout is not None
        one.stdout.readline()
    # All are ready: they begin together.
    said = []
    for one in running:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    for one in running:
        out, _ = one.communicate()
        if one.returncode:
            raise OSError(f"a join ended with {one.returncode}")
        said.append(json.loads(out))
    if processes == 1:
        return said[0]["records"] / said[0]["cpu_s"]
    return sum(one["records"] for one in said) / max(one["wall_s"] for one in said)
