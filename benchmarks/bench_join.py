"""Speed of the join from Kafka to Kafka, with transactions: ``python -m benchmarks.bench_join``.

A log of requests (a snapshot of 100 rows of 16 floats, an impression of 10 of them, a click) is written to
the three input topics; then a joiner starts and reads it to the end. CPU seconds are those of the joiner's
process, less what an idle one needs to start. A joined item is an impressed item. Every round is a new
consumer group on the same log. Writes out/bench-join.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
from aiokafka import AIOKafkaProducer

from benchmarks.bench_join_core import SHOWN, records
from local.chaos_check import found
from local.chaos_kafka import read
from local.child import Child
from local.health import SERVING, status_of
from local.kafka_server import KafkaServer
from local.paths import REPOSITORY
from local.ports import HOST, free_ports
from local.processes import RUNTIME
from rec.events.v1 import events_pb2 as ev
from rec.v1 import worker_pb2, worker_pb2_grpc
from services.contract import times, topics
from services.contract.join_events import Source

TOPIC = {
    Source.SNAPSHOTS: topics.FEATURE_SNAPSHOTS,
    Source.IMPRESSIONS: topics.IMPRESSIONS,
    Source.ACTIONS: topics.ACTIONS,
}
WINDOW_MS, BOUND_MS = 20_000, 2_000
BARRIER = "bench-end"
IDLE_S = 3.0
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Round:
    """One reading of the whole log."""

    cpu_s: float
    wall_s: float
    peak_mb: float


async def write_log(bootstrap: str, requests: int) -> tuple[int, int]:
    """Writes the log and a barrier behind it; (records, bytes)."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, linger_ms=20, max_batch_size=512 * 1024, max_request_size=8 * 1024 * 1024
    )
    await producer.start()
    count = size = 0
    newest_us = 0
    futures: list[Any] = []
    for source, raw in records(requests):
        record = ev.EventRecord.FromString(raw)
        name = record.WhichOneof("record")
        if name == "heartbeat":
            continue
        event = getattr(record, name)
        newest_us = max(newest_us, times.to_us(event.occurred_at))
        key = topics.request_key(event.request_id)
        where = topics.partition_of(key, topics.EVENT_PARTITIONS)
        futures.append(await producer.send(TOPIC[source].name, raw, key=key, partition=where))
        count, size = count + 1, size + len(raw)
        if len(futures) >= 5_000:
            await asyncio.gather(*futures)
            futures.clear()
    barrier = ev.Barrier(barrier_id=BARRIER, occurred_at=times.from_us(newest_us + 3600 * 1_000_000))
    value = ev.EventRecord(barrier=barrier).SerializeToString()
    for topic in TOPIC.values():
        futures += [
            await producer.send(topic.name, value, partition=partition)
            for partition in range(topics.EVENT_PARTITIONS)
        ]
    await asyncio.gather(*futures)
    await producer.stop()
    return count, size


class Joiner:
    """One joiner process of its own group."""

    def __init__(self, folder: Path, bootstrap: str, group: str) -> None:
        self._grpc, self._admin, metrics = free_ports(3)
        settings = {
            "GROUP_ID": group,
            "WINDOW_MS": WINDOW_MS,
            "BOUND_MS": BOUND_MS,
            "GRPC__PORT": self._grpc,
            "GRPC__ADMIN_PORT": self._admin,
            "GRPC__METRICS_PORT": metrics,
            "KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        }
        environment = {f"RECLOOP_{key}": str(value) for key, value in settings.items()}
        self.began = time.monotonic()
        self._child = Child.start(
            group,
            [sys.executable, "-m", "services.joiner"],
            folder / f"{group}.log",
            env={**os.environ, **RUNTIME, **environment},
            cwd=REPOSITORY,
        )

    def cpu_s(self) -> float:
        """CPU seconds of the process so far."""
        used = psutil.Process(self._child.pid).cpu_times()
        return used.user + used.system

    def until_serving(self) -> None:
        """Returns when it owns its partitions."""
        while status_of(f"{HOST}:{self._admin}") != SERVING:
            self._child.require_running()
            self._in_time()
            time.sleep(0.05)

    def until_barrier(self) -> None:
        """Returns when the barrier has passed every partition."""
        with grpc.insecure_channel(f"{HOST}:{self._grpc}") as channel:
            stub = worker_pb2_grpc.WorkerServiceStub(channel)
            while True:
                self._child.require_running()
                self._in_time()
                status = stub.GetWorkerStatus(worker_pb2.GetWorkerStatusRequest(), timeout=30)
                whole = all(part.committed == part.end for part in status.partitions)
                if whole and status.partitions and status.last_barrier_id == BARRIER:
                    return
                time.sleep(0.1)

    def _in_time(self) -> None:
        if time.monotonic() - self.began > TIMEOUT_S:
            raise TimeoutError(f"the joiner did not read the log in {TIMEOUT_S:.0f} s:\n{self._child.tail()}")

    def stop(self) -> float:
        """Ends it; its peak memory in MB."""
        peak = self._child.sample_memory() / 1e6
        self._child.stop(10)
        return peak


def measure(folder: Path, bootstrap: str, group: str, idle_cpu_s: float) -> Round:
    """One round."""
    joiner = Joiner(folder, bootstrap, group)
    try:
        joiner.until_serving()
        joiner.until_barrier()
        wall_s, cpu_s = time.monotonic() - joiner.began, joiner.cpu_s()
    finally:
        peak = joiner.stop()
    return Round(cpu_s - idle_cpu_s, wall_s, peak)


def idle_cpu_s(folder: Path, bootstrap: str) -> float:
    """CPU seconds of a joiner that starts and finds nothing to read."""
    joiner = Joiner(folder, bootstrap, "idle")
    try:
        joiner.until_serving()
        time.sleep(IDLE_S)
        return joiner.cpu_s()
    finally:
        joiner.stop()


def main(argv: list[str]) -> int:
    """Measures, prints, writes out/bench-join.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_join", description=__doc__)
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out")
    arguments = parser.parse_args(argv)
    folder = arguments.out.resolve() / "bench-join"
    shutil.rmtree(folder, ignore_errors=True)
    kafka = KafkaServer(folder / "kafka")
    kafka.start()
    try:
        kafka.create_topics()
        idle = idle_cpu_s(folder, kafka.bootstrap)
        count, size = asyncio.run(write_log(kafka.bootstrap, arguments.requests))
        print(
            f"{count:,} records, {size / 1e6:,.0f} MB; an idle joiner starts with {idle:.1f} CPU s",
            flush=True,
        )
        rounds = []
        for number in range(arguments.rounds):
            rounds.append(measure(folder, kafka.bootstrap, f"bench-{number}", idle))
            print(f"  round {number + 1}: {rounds[-1]}", flush=True)
        written = found(read(kafka.bootstrap, [topics.SAMPLES], committed=True))
    finally:
        kafka.stop()
    items = arguments.requests * SHOWN
    if len(written.samples) != items or set(written.samples.values()) != {arguments.rounds}:
        print(f"bench-join: FAILED: {len(written.samples)} samples of {items} items", file=sys.stderr)
        return 1
    ours = {
        "records_per_s_core": _figure([count / r.cpu_s for r in rounds]),
        "joined_items_per_s_core": _figure([items / r.cpu_s for r in rounds]),
        "records_per_s": _figure([count / r.wall_s for r in rounds]),
        "peak_memory_mb": _figure([r.peak_mb for r in rounds]),
    }
    result = {"requests": arguments.requests, "records": count, "input_mb": size / 1e6, "ours": ours}
    (arguments.out / "bench-join.json").write_text(json.dumps(result, indent=2) + "\n")
    for name, figure in ours.items():
        print(
            f"  {name:<26} median {figure['median']:>10,.0f}  ({figure['min']:,.0f} to {figure['max']:,.0f})"
        )
    return 0


def _figure(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
