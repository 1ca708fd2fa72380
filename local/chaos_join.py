"""``python -m local chaos-join``: kills, pauses and restarts around the joiner under load, then counts.

Kafka, two joiner replicas and the traffic run on this machine. Each round waits until the replicas serve and
the traffic flows, strikes at a random moment and lets the struck part come back. Some kills are aimed: they
come with the first bytes of a transaction, so that it is open. At the end a barrier closes every window, and
what stands on Kafka is compared with what the inputs say (chaos_check.py).

Faults: ``kill`` (SIGKILL of a replica), ``aimed`` (the same, in a transaction), ``pause`` (SIGSTOP for longer
than the group's session: the replica comes back as a zombie), ``broker`` (SIGKILL of Kafka).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc

from local import chaos_check
from local.chaos_check import LogRecord
from local.chaos_kafka import Tail, read
from local.child import Child
from local.errors import StartFailed
from local.health import SERVING, status_of
from local.kafka_server import KafkaServer
from local.paths import REPOSITORY
from local.ports import HOST, free_ports
from local.processes import RUNTIME
from local.up import say
from rec.v1 import worker_pb2, worker_pb2_grpc
from services.contract import topics
from services.contract.join_config import JoinConfig
from services.contract.join_events import SOURCES, Source

REPLICAS = ("joiner-a", "joiner-b")
WINDOW_MS, BOUND_MS, SESSION_MS = 5_000, 1_000, 3_000
MIN_RATE = 200.0
MIN_OPEN_KILLS = 5
PAUSE_S = SESSION_MS / 1000 + 4
RECOVERY_S = 90.0
# A transaction is open for some tens of ms; what its records say about their time is the client's clock.
OPEN_SPAN_MS = 1_500
INPUTS = (topics.FEATURE_SNAPSHOTS, topics.IMPRESSIONS, topics.ACTIONS)
OUTPUTS = (topics.SAMPLES, topics.LATE_EVENTS, topics.DEAD_LETTERS)


@dataclass(frozen=True)
class Round:
    """One strike. ``impressions_per_s``: acknowledged in the two seconds before it."""

    number: int
    fault: str
    victim: str
    at_ms: int
    impressions_per_s: float
    recovered_s: float


class Chaos:
    """One run. ``close`` ends every process."""

    def __init__(self, folder: Path, rate: float, seed: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = folder
        self._rate = rate
        self._random = random.Random(seed)
        self._seed = seed
        self.kafka = KafkaServer(folder / "kafka")
        ports = free_ports(3 * len(REPLICAS))
        self._ports = {name: ports[3 * i : 3 * i + 3] for i, name in enumerate(REPLICAS)}
        self._children: dict[str, Child] = {}
        self._traffic_log = folder / "traffic.log"
        self._tail: Tail | None = None

    def start(self) -> None:
        """Everything, until traffic flows."""
        self.kafka.start(say)
        self.kafka.create_topics()
        for name in REPLICAS:
            self._start_replica(name)
        self._children["traffic"] = Child.start(
            "traffic",
            [
                sys.executable, "-m", "loadgen", "join-traffic", "--kafka", self.kafka.bootstrap,
                "--rate", str(self._rate), "--seed", str(self._seed), "--run", f"chaos{self._seed}",
            ],
            self._traffic_log,
            env={**os.environ, **RUNTIME},
            cwd=REPOSITORY,
        )  # fmt: skip
        self._tail = Tail(self.kafka.bootstrap)

    def _start_replica(self, name: str) -> None:
        grpc, admin, metrics = self._ports[name]
        settings = {
            "NAME": name,
            "GROUP_ID": "joiner-chaos",
            "WINDOW_MS": WINDOW_MS,
            "BOUND_MS": BOUND_MS,
            "GRPC__PORT": grpc,
            "GRPC__ADMIN_PORT": admin,
            "GRPC__METRICS_PORT": metrics,
            "KAFKA__BOOTSTRAP_SERVERS": self.kafka.bootstrap,
            "KAFKA__SESSION_TIMEOUT_MS": SESSION_MS,
        }
        environment = {f"RECLOOP_{key}": str(value) for key, value in settings.items()}
        self._children[name] = Child.start(
            name,
            [sys.executable, "-m", "services.joiner"],
            self._folder / f"{name}.log",
            env={**os.environ, **RUNTIME, **environment},
            cwd=REPOSITORY,
        )

    # -- rounds ------------------------------------------------------------------------------------------

    def strike(self, number: int, fault: str) -> Round:
        """One round, until the struck part is back."""
        self._until_flowing()
        time.sleep(self._random.uniform(0.1, 1.5))
        victim = "kafka" if fault == "broker" else self._random.choice(REPLICAS)
        rate, owners = self._impressions_per_s(), self._owners()
        if fault == "aimed" and self._tail is not None:
            struck: list[str] = []

            def strike(partition: int) -> None:
                struck.append(owners.get(partition, victim))
                self._children[struck[0]].send(signal.SIGKILL)

            if self._tail.on_next(strike, 5):
                victim = struck[0]
        at_ms, began = time.time_ns() // 1_000_000, time.monotonic()
        if fault == "broker":
            self.kafka.kill()
            time.sleep(self._random.uniform(0, 2))
            self.kafka.start()
        elif fault == "pause":
            self._children[victim].send(signal.SIGSTOP)
            time.sleep(PAUSE_S)
            self._children[victim].send(signal.SIGCONT)
        else:
            self._children[victim].kill()
            self._start_replica(victim)
        self._until_flowing()
        return Round(number, fault, victim, at_ms, round(rate, 1), round(time.monotonic() - began, 1))

    def _until_flowing(self) -> None:
        """Both replicas serve, every partition has an owner that commits, the traffic is acknowledged."""
        deadline = time.monotonic() + RECOVERY_S
        while True:
            for child in self._children.values():
                child.require_running()
            serving = all(status_of(f"{HOST}:{self._ports[name][1]}") == SERVING for name in REPLICAS)
            if serving and self._impressions_per_s() >= MIN_RATE:
                return
            if time.monotonic() > deadline:
                raise StartFailed(f"not recovered in {RECOVERY_S:.0f} s; logs in {self._folder}")
            time.sleep(0.2)

    def _owners(self) -> dict[int, str]:
        """Which replica owns which partition now, by their own word."""
        owners: dict[int, str] = {}
        for name in REPLICAS:
            with grpc.insecure_channel(f"{HOST}:{self._ports[name][0]}") as channel:
                stub = worker_pb2_grpc.WorkerServiceStub(channel)
                status = stub.GetWorkerStatus(worker_pb2.GetWorkerStatusRequest(), timeout=5)
            owners |= {where.partition: name for where in status.partitions}
        return owners

    def _impressions_per_s(self) -> float:
        """Over the last two reports of the traffic; 0 when they are old."""
        reports = [
            json.loads(line) for line in self._children["traffic"].tail(3).splitlines() if line[:1] == "{"
        ]
        if len(reports) < 2 or time.time() - reports[-1]["at_s"] > 2.5:
            return 0.0
        first, last = reports[0], reports[-1]
        count = last[topics.IMPRESSIONS.name] - first[topics.IMPRESSIONS.name]
        return float(count / max(0.001, last["at_s"] - first["at_s"]))

    # -- the end -----------------------------------------------------------------------------------------

    def drain(self) -> None:
        """The traffic ends with its barrier; returns when that has passed every partition."""
        traffic = self._children["traffic"]
        if not traffic.stop(120) or traffic.exit_code:
            raise StartFailed(f"the traffic did not end well; {traffic.log} ends with:\n{traffic.tail()}")
        deadline = time.monotonic() + RECOVERY_S
        while True:
            committed = read(self.kafka.bootstrap, OUTPUTS[:1], committed=True)
            if len(chaos_check.found(committed).barriers) >= topics.EVENT_PARTITIONS:
                return
            if time.monotonic() > deadline:
                raise StartFailed(f"the barrier did not pass every partition; logs in {self._folder}")
            time.sleep(1)

    def close(self) -> None:
        """Ends every process."""
        if self._tail is not None:
            self._tail.close()
        for child in self._children.values():
            child.send(signal.SIGCONT)
            child.stop(10)
        self.kafka.stop()


def plan(rounds: int) -> list[str]:
    """The faults in order: half of the kills aimed, every fifth round a pause or the broker."""
    cycle = ("aimed", "kill", "aimed", "aimed", "pause", "aimed", "kill", "aimed", "aimed", "broker")
    return [cycle[number % len(cycle)] for number in range(rounds)]


def result(
    rounds: Sequence[Round], difference: chaos_check.Difference, aborted_ms: Sequence[int]
) -> dict[str, Any]:
    """The content of out/chaos-join.json (keys: docs/results.md)."""
    kills = [r for r in rounds if r.fault in ("kill", "aimed")]
    opened = [r for r in kills if any(r.at_ms - OPEN_SPAN_MS <= at <= r.at_ms + 100 for at in aborted_ms)]
    recovered = sorted(r.recovered_s for r in rounds)
    return {
        "rounds": len(rounds),
        "kills": len(kills),
        "kills_in_open_transaction": len(opened),
        "pauses": sum(r.fault == "pause" for r in rounds),
        "broker_kills": sum(r.fault == "broker" for r in rounds),
        "impressions_per_s_min": min(r.impressions_per_s for r in rounds),
        "impressed_items": difference.impressed_items,
        "samples": difference.samples,
        "reason_rows": difference.reason_rows,
        "duplicates": difference.duplicates,
        "unexplained_losses": difference.unexplained_losses,
        "unjustified": difference.unjustified,
        "altered": difference.altered,
        "aborted_records": len(aborted_ms),
        "recovery_s": {"p50": recovered[len(recovered) // 2], "max": recovered[-1]},
        "round": [asdict(r) for r in rounds],
    }


def failures(figures: dict[str, Any], wanted_rounds: int) -> list[str]:
    """What in the result does not show what it should; empty when all does."""
    problems = [
        f"{name} = {figures[name]}, not 0"
        for name in ("duplicates", "unexplained_losses", "unjustified", "altered")
        if figures[name]
    ]
    if figures["rounds"] < wanted_rounds:
        problems.append(f"{figures['rounds']} rounds of {wanted_rounds}")
    if figures["impressions_per_s_min"] < MIN_RATE:
        problems.append(f"{figures['impressions_per_s_min']} impressions/s at a strike, below {MIN_RATE:.0f}")
    if not figures["samples"]:
        problems.append("no samples: nothing was proved")
    enough = min(MIN_OPEN_KILLS, wanted_rounds // 4)
    if figures["kills_in_open_transaction"] < enough:
        problems.append(
            f"{figures['kills_in_open_transaction']} kills in an open transaction, fewer than {enough}"
        )
    return problems


def run(folder: Path, out: Path, rounds: int, rate: float, seed: int) -> int:
    """Runs it all; 0 when nothing is lost, doubled or unexplained."""
    chaos = Chaos(folder, rate, seed)
    done: list[Round] = []
    try:
        chaos.start()
        for number, fault in enumerate(plan(rounds), 1):
            done.append(chaos.strike(number, fault))
            last = done[-1]
            say(
                f"  round {number:2}/{rounds}  {last.fault:<6} {last.victim:<8} at "
                f"{last.impressions_per_s:5.0f} impressions/s, recovered in {last.recovered_s:4.1f} s"
            )
        chaos.drain()
        bootstrap = chaos.kafka.bootstrap
        inputs = read(bootstrap, INPUTS, committed=True)
        outputs = read(bootstrap, OUTPUTS, committed=True)
        everything = read(bootstrap, [topics.SAMPLES], committed=False)
    finally:
        chaos.close()
    config = JoinConfig(window_us=WINDOW_MS * 1000, bound_us=BOUND_MS * 1000)
    by_partition: dict[int, dict[Source, list[LogRecord]]] = {
        p: {source: [] for source in SOURCES} for p in range(topics.EVENT_PARTITIONS)
    }
    for record in inputs:
        by_partition[record.partition][chaos_check.INPUTS[record.topic]].append(record)
    said = chaos_check.found(outputs)
    difference = chaos_check.compare(chaos_check.expected(config, by_partition), said)
    samples = [record for record in outputs if record.topic == topics.SAMPLES.name]
    figures = result(done, difference, chaos_check.aborted(everything, samples))
    out.mkdir(parents=True, exist_ok=True)
    (out / "chaos-join.json").write_text(json.dumps(figures, indent=2) + "\n")
    for key, value in figures.items():
        if key != "round":
            print(f"  {key:<26} {value}")
    problems = failures(figures, rounds)
    for problem in problems:
        print(f"chaos-join: FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


def main(argv: list[str]) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m local chaos-join", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="strikes")
    parser.add_argument("--rate", type=float, default=250.0, help="impressions per second")
    parser.add_argument("--seed", type=int, default=1, help="of traffic, victims and moments")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out", help="folder of chaos-join.json")
    arguments = parser.parse_args(argv)
    if not 1 <= arguments.rounds <= 1_000:
        parser.error(f"--rounds {arguments.rounds}: 1 to 1,000")
    if not MIN_RATE <= arguments.rate <= 2_000:
        parser.error(f"--rate {arguments.rate}: {MIN_RATE:.0f} to 2,000")
    # A client that loses its broker says so ten times a second.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    out = arguments.out.resolve()
    return run(out / "chaos", out, arguments.rounds, arguments.rate, arguments.seed)
