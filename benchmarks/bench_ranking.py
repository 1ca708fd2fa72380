"""Ranking while its model changes: ``python -m benchmarks.bench_ranking`` (docs/benchmarks.md).

A ranking process on a real Kafka is asked at equal distances (open loop) by pairs of neighbouring windows:
with a chain of deltas and without; while a full model replaces the one that serves and without. Latency
counts from the intended moment. Every answer must be scored, and by the model that was published. Then its
memory beside its tables. Writes out/bench-ranking.json; exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import uvloop

from benchmarks import rows
from benchmarks.closed_loop import grpc_caller
from benchmarks.command import command_parser, leave
from benchmarks.figures import cell, spread
from benchmarks.open_loop import Sent, open_loop
from benchmarks.peer import Peer
from benchmarks.ranking_chain import FIRST, partition_of
from benchmarks.result import machine, versions
from benchmarks.service import Service
from benchmarks.trainer_traffic import CATEGORIES, SHAPE, Sizes, Traffic
from local.child import peak_rss_bytes
from local.kafka_server import KafkaServer
from local.paths import REPOSITORY
from local.processes import RUNTIME
from rec.v1 import ranking_pb2
from services.contract import columns, model_store
from services.contract.model_state import ModelState
from services.runtime.telemetry import freeze_after_load

METHOD = "/rec.v1.RankingService/Rank"
CANDIDATES, SERVED = 1_000, 100
REQUESTS = 200
# The release of a swap is written so long after its window has begun.
RELEASED_AFTER_S = 0.5
# What a process does that reads a large model: hashes and copies.
BUSY = "import hashlib; held = bytes(range(256)) * 160_000\nwhile True: hashlib.sha256(held); bytearray(held)"
# A model of next to nothing: what a ranking process takes without tables.
EMPTY = Sizes(users=10, items=CANDIDATES, batches=1)


def requests(traffic: Traffic) -> Callable[[], bytes]:
    """The next of REQUESTS requests, for users and items that the model has."""
    rng = np.random.default_rng(11)
    made = []
    for number in range(REQUESTS):
        features = rng.normal(0, 1, (CANDIDATES, SHAPE.item_width)).astype(np.float32)
        features[:, SHAPE.category_column] = rng.integers(0, CATEGORIES, CANDIDATES)
        places = rng.choice(len(traffic.item_ids), CANDIDATES, replace=False)
        request = ranking_pb2.RankRequest(
            request_id=f"bench-{number}",
            user_id=int(rng.choice(traffic.user_ids)),
            n=SERVED,
            item_ids=columns.encode(traffic.item_ids[places], columns.U64),
            schema_hash=SHAPE.schema_hash,
            user_features=columns.encode(rng.normal(0, 1, SHAPE.user_width), columns.F32),
            item_features=columns.encode(features, columns.F32),
        )
        request.occurred_at.GetCurrentTime()
        made.append(request.SerializeToString())
    return itertools.cycle(made).__next__


def version(sent: Sent) -> tuple[int, int]:
    """Generation and sequence that an answer came from; ValueError for what is no whole answer."""
    if sent.answer is None:
        raise ValueError(f"a request failed: {sent.error}")
    said = ranking_pb2.RankResponse.FromString(sent.answer)
    if not said.provenance.scored or said.provenance.degraded:
        raise ValueError(f"an answer is not whole: {said.provenance}")
    return said.provenance.model.lineage.generation, said.provenance.model.sequence


def percentile(sent: Sequence[Sent], percent: float, between: tuple[float, float] = (0.0, np.inf)) -> float:
    """Of the latencies of what was meant to be sent in an interval, ms."""
    return float(
        np.percentile([one.took_ms for one in sent if between[0] <= one.at_s <= between[1]], percent)
    )


class Ranking:
    """A ranking process of a base, and the writer of its chain."""

    def __init__(self, kafka: KafkaServer, traffic: Traffic, folder: Path, given: argparse.Namespace) -> None:
        self._given = given
        folder.mkdir()
        store = str(folder / "store")
        self.state = traffic.state()
        saved = model_store.save_base(store, self.state, created_at_us=1)
        command = [sys.executable, "-m", "benchmarks.ranking_chain", kafka.bootstrap, saved.manifest_uri]
        pace = [str(round(given.rows_per_s * given.every_s)), str(given.every_s)]
        self._chain = Peer("chain", [*command, *pace], folder, RUNTIME)
        self._release(FIRST)
        settings = {"KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap, "MODEL_STORE_URI": store}
        self._service = Service("services.ranking", folder, settings)
        self._connect = grpc_caller(self._service.target, METHOD)
        self._request = requests(traffic)

    def memory(self) -> tuple[int, int]:
        """Resident bytes now, and the most so far."""
        pid = self._service.child.pid
        return psutil.Process(pid).memory_info().rss, peak_rss_bytes(pid)

    def _release(self, generation: int) -> None:
        self._chain.ask("release", generation)

    async def quiet(self, seconds: float) -> list[Sent]:
        """A window in which nothing changes."""
        return await open_loop(self._connect, self._request, rate=self._given.rate, seconds=seconds)

    async def with_deltas(self) -> list[Sent]:
        """A window full of deltas; ValueError when the last one is not served soon behind it."""
        self._chain.ask("prepare", round(self._given.seconds / self._given.every_s))
        sent, (sequence,) = await asyncio.gather(
            self.quiet(self._given.seconds), asyncio.to_thread(self._chain.ask, "publish")
        )
        for _ in range(50):
            if version((await self.quiet(0.1))[-1]) >= (FIRST, sequence):
                return sent
        raise ValueError(f"delta {sequence:.0f} was published and is not served")

    async def with_swap(self, generation: int) -> tuple[list[Sent], float]:
        """A window in which another generation takes over, and when it was first served in it; ValueError
        when it did not."""

        async def release() -> None:
            await asyncio.sleep(RELEASED_AFTER_S)
            await asyncio.to_thread(self._release, generation)

        sent, _ = await asyncio.gather(self.quiet(self._given.swap_s), release())
        served = [one.at_s for one in sent if version(one)[0] == generation]
        if not served:
            raise ValueError(f"generation {generation} did not take over within {self._given.swap_s} s")
        return sent, min(served)

    async def beside_busy(self) -> list[Sent]:
        """A window in which nothing changes, but another process has one of the cores."""
        busy = await asyncio.create_subprocess_exec(sys.executable, "-c", BUSY)
        try:
            await asyncio.sleep(RELEASED_AFTER_S)
            return await self.quiet(self._given.seconds)
        finally:
            busy.kill()
            await busy.wait()

    def close(self) -> None:
        """Ends both processes."""
        self._service.close()
        self._chain.close()


async def paired(
    changing: Callable[[], Awaitable[list[Sent]]], quiet: Callable[[], Awaitable[list[Sent]]], pairs: int
) -> list[tuple[list[Sent], list[Sent]]]:
    """(changing, quiet) windows, neighbours in turns; the first pair does not count. ValueError for an answer
    that is not whole."""

    async def window(of: Callable[[], Awaitable[list[Sent]]]) -> list[Sent]:
        # A full collection of this process, with torch and all former answers, is a stall of 80 ms or more
        # that would count as ranking's.
        freeze_after_load()
        return await of()

    found = []
    for number in range(-1, pairs):
        if number % 2:
            one = await window(changing), await window(quiet)
        else:
            still = await window(quiet)
            one = await window(changing), still
        for sent in (*one[0], *one[1]):
            version(sent)
        if number >= 0:
            found.append(one)
            p99 = [percentile(sent, 99) for sent in one]
            print(f"  pair {number + 1}: p99 {p99[0]:.1f} ms, quiet {p99[1]:.1f} ms", file=sys.stderr)
    return found


async def windows(ranking: Ranking, given: argparse.Namespace) -> dict[str, Any]:
    """All pairs: first the deltas, then the swaps, whose generations have no deltas; then beside a process
    that is nothing to ranking."""
    deltas = await paired(ranking.with_deltas, lambda: ranking.quiet(given.seconds), given.pairs)
    # In partitions of model-deltas without the deltas of the first.
    others = (one for one in itertools.count(FIRST + 1) if partition_of(one) != partition_of(FIRST))
    took: list[float] = []

    async def swap() -> list[Sent]:
        sent, served_s = await ranking.with_swap(next(others))
        took.append(served_s - RELEASED_AFTER_S)
        return sent

    swaps = await paired(swap, lambda: ranking.quiet(given.swap_s), given.pairs)
    busy = await paired(ranking.beside_busy, lambda: ranking.quiet(given.seconds), given.pairs)
    return {"deltas": deltas, "swaps": swaps, "swap_s": took[1:], "busy": busy}


def table_bytes(state: ModelState) -> int:
    """Of what a base holds of its rows: ids, weights, optimizer state, counts and times."""
    return sum(
        len(table) * sum(one.itemsize * (one.size // len(one)) for one in _parts(table))
        for table in state.tables.values()
    )


def _parts(table: Any) -> tuple[np.ndarray, ...]:
    return table.ids()[0], table.rows, table.optimizer, table.counts, table.last_seen_us


def figures(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The two rows of latency; a swap's is of the time from its release to half a second behind its first
    answer."""
    p99 = [[percentile(one[side], 99) for one in found["deltas"]] for side in (0, 1)]
    spans = [(RELEASED_AFTER_S, RELEASED_AFTER_S + took + 0.5) for took in found["swap_s"]]
    p95 = [
        [percentile(one[side], 95, span) for one, span in zip(found["swaps"], spans, strict=True)]
        for side in (0, 1)
    ]
    return [rows.row("rank_p99_with_deltas", *p99), rows.row("rank_p99_full_swap", *p95)]


def beside_busy(found: dict[str, Any], percent: float) -> dict[str, float]:
    """Latency beside the busy process over latency without: what is left of a core costs that much, whatever
    ranking does."""
    pairs = [[percentile(side, percent) for side in one] for one in found["busy"]]
    return spread([busy / quiet for busy, quiet in pairs], 2)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Everything, on a Kafka of its own."""
    where = machine()
    folder = given.out.resolve() / "bench-ranking"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    idle, _ = _on_kafka(folder / "empty", EMPTY, given, lambda ranking: ranking.memory())
    sizes = Sizes(given.table_rows // 5, given.table_rows - given.table_rows // 5, 1)

    def both(ranking: Ranking) -> tuple[tuple[int, int], int, dict[str, Any], int]:
        loaded = ranking.memory()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(windows(ranking, given))
        return loaded, table_bytes(ranking.state), found, ranking.memory()[1]

    (resident, at_load), tables, found, peak = _on_kafka(folder / "full", sizes, given, both)
    memory = {
        "idle": idle,
        "loaded": resident,
        "peak_of_load": at_load,
        "peak_of_swaps": peak,
        "tables": tables,
    }
    held = rows.row("ranking_memory_ratio", [(resident - idle) / 1e6], [tables / 1e6])
    return {
        "rows": [*figures(found), held],
        "swap_s": spread(found["swap_s"], 2),
        "beside_busy": {"p95": beside_busy(found, 95), "p99": beside_busy(found, 99)},
        "memory_mb": {name: round(of / 1e6, 1) for name, of in memory.items()},
        "rate": given.rate,
        "rows_per_s": given.rows_per_s,
        "table_rows": given.table_rows,
        "pairs": given.pairs,
        "machine": where,
        "versions": versions("torch", "grpcio", "numpy", "aiokafka"),
    }


def _on_kafka(folder: Path, sizes: Sizes, given: argparse.Namespace, ask: Callable[[Ranking], Any]) -> Any:
    """What is asked of a ranking process of these sizes, on a Kafka that is empty."""
    kafka = KafkaServer(folder.with_name(f"{folder.name}-kafka"))
    kafka.start()
    try:
        kafka.create_topics()
        ranking = Ranking(kafka, Traffic(sizes), folder, given)
        try:
            return ask(ranking)
        finally:
            ranking.close()
    finally:
        kafka.stop()


def main(argv: list[str]) -> int:
    parser = command_parser("bench_ranking", __doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a window with deltas, and without")
    parser.add_argument("--swap-s", type=float, default=16.0, help="of a window with a swap, and without")
    parser.add_argument("--rows-per-s", type=float, default=10_000, help="touched rows")
    parser.add_argument("--every-s", type=float, default=0.5, help="between two deltas")
    parser.add_argument("--table-rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out")
    given = parser.parse_args(argv)
    try:
        result = measure(given)
    except ValueError as error:
        print(f"bench-ranking: FAILED: {error}", file=sys.stderr)
        return 1
    result["missed"] = rows.missed(result["rows"])
    beside = ", ".join(f"{name} {cell(of, 2)}" for name, of in result["beside_busy"].items())
    held = (
        f"memory {result['memory_mb']}; a swap takes {result['swap_s']['median']} s\n"
        f"beside a busy process, over without: {beside}"
    )
    return leave("bench-ranking", result, given.out, f"{rows.table(result['rows'])}\n\n{held}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
