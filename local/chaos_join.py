"""``python -m local chaos-join``: kills, pauses and restarts around the join under load, then counts.

Kafka, one host of the join and the traffic run on this machine; the hosts (the joiner service, Flink) have
their turns. Each round waits until the host works and the traffic flows, strikes at a random moment and lets
the struck part come back. Some kills are aimed: they come with the first bytes of a transaction, so that it
is open. At the end a barrier closes every window, and what stands on Kafka is compared with what the inputs
say (chaos_check.py).

Faults: ``kill`` (SIGKILL of a process that joins), ``aimed`` (the same, in a transaction), ``pause`` (SIGSTOP
until its work has been given to another one: it comes back as a zombie), ``broker`` (SIGKILL of Kafka).
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from local import chaos_check, flink_jar
from local.chaos_check import LogRecord
from local.chaos_flink import FlinkHost
from local.chaos_host import BOUND_MS, FLINK, JOINER, WINDOW_MS, Host, JoinerHost
from local.chaos_kafka import Tail, read
from local.chaos_result import MIN_RATE, Round, failures, plan, result, together
from local.child import Child
from local.errors import MissingPrerequisite, StartFailed
from local.kafka_server import KafkaServer
from local.paths import REPOSITORY
from local.processes import RUNTIME
from local.up import say
from services.contract import topics
from services.contract.join_config import JoinConfig
from services.contract.join_events import SOURCES, Source

HOSTS: dict[str, Callable[[Path], Host]] = {JOINER: JoinerHost, FLINK: FlinkHost}
RECOVERY_S = 90.0
AIM_S = 5.0
INPUTS = (topics.FEATURE_SNAPSHOTS, topics.IMPRESSIONS, topics.ACTIONS)


class KillInTransaction:
    """An Aim: holds the process that writes, kills it when its transaction is open."""

    def __init__(self, host: Host, owner: Callable[[int], str]) -> None:
        self._host = host
        self._owner = owner
        self.held = ""

    def freeze(self, partition: int) -> None:
        """As Aim says."""
        self.held = self._owner(partition)
        self._host.send(self.held, signal.SIGSTOP)

    def decide(self, is_open: bool) -> None:
        """As Aim says."""
        self._host.send(self.held, signal.SIGKILL if is_open else signal.SIGCONT)


class Chaos:
    """The run of one host. ``close`` ends every process."""

    def __init__(self, folder: Path, host: Host, rate: float, seed: int) -> None:
        self._folder = folder
        self._host = host
        self._rate = rate
        self._random = random.Random(seed)
        self._seed = seed
        self.kafka = KafkaServer(folder / "kafka")
        self._traffic: Child | None = None
        self._tail: Tail | None = None

    def start(self) -> None:
        """Everything, until traffic flows."""
        self.kafka.start(say)
        self.kafka.create_topics()
        self._host.start(self.kafka.bootstrap)
        self._traffic = Child.start(
            "traffic",
            [
                sys.executable, "-m", "loadgen", "join-traffic", "--kafka", self.kafka.bootstrap,
                "--rate", str(self._rate), "--seed", str(self._seed), "--run", f"chaos{self._seed}",
            ],
            self._folder / "traffic.log",
            env={**os.environ, **RUNTIME},
            cwd=REPOSITORY,
        )  # fmt: skip
        self._tail = Tail(self.kafka.bootstrap, self._host.outputs[0].name)

    # -- rounds ------------------------------------------------------------------------------------------

    def strike(self, number: int, fault: str) -> Round:
        """One round, until the struck part is back."""
        host = self._host
        self._until_flowing()
        time.sleep(self._random.uniform(0.1, 1.5))
        victim = "kafka" if fault == "broker" else host.pick(self._random)
        rate, owner = self._impressions_per_s(), host.aim()
        if fault == "aimed" and self._tail is not None:
            aim = KillInTransaction(host, owner)
            if self._tail.in_transaction(aim, AIM_S):
                victim = aim.held
        at_ms, began = time.time_ns() // 1_000_000, time.monotonic()
        if fault == "broker":
            self.kafka.kill()
            time.sleep(self._random.uniform(0, 2))
            self.kafka.start()
        elif fault == "pause":
            host.send(victim, signal.SIGSTOP)
            time.sleep(host.pause_s)
            host.send(victim, signal.SIGCONT)
        else:
            host.replace(victim)
        host.mark()
        self._until_flowing()
        return Round(number, fault, victim, at_ms, round(rate, 1), round(time.monotonic() - began, 1))

    def _until_flowing(self) -> None:
        """The host works and the traffic is acknowledged."""
        deadline = time.monotonic() + RECOVERY_S
        while True:
            self._running_traffic()
            if self._host.works() and self._impressions_per_s() >= MIN_RATE:
                return
            if time.monotonic() > deadline:
                raise StartFailed(f"not recovered in {RECOVERY_S:.0f} s; logs in {self._folder}")
            time.sleep(0.2)

    def _running_traffic(self) -> Child:
        assert self._traffic is not None
        self._traffic.require_running()
        return self._traffic

    def _impressions_per_s(self) -> float:
        """Over the last two reports of the traffic; 0 when they are old."""
        lines = self._running_traffic().tail(3).splitlines()
        reports = [json.loads(line) for line in lines if line[:1] == "{"]
        if len(reports) < 2 or time.time() - reports[-1]["at_s"] > 2.5:
            return 0.0
        first, last = reports[0], reports[-1]
        count = last[topics.IMPRESSIONS.name] - first[topics.IMPRESSIONS.name]
        return float(count / max(0.001, last["at_s"] - first["at_s"]))

    # -- the end -----------------------------------------------------------------------------------------

    def drain(self) -> None:
        """The traffic ends with its barrier; returns when that has passed every partition."""
        traffic = self._running_traffic()
        if not traffic.stop(120) or traffic.exit_code:
            raise StartFailed(f"the traffic did not end well; {traffic.log} ends with:\n{traffic.tail()}")
        samples = self._host.outputs[0]
        deadline = time.monotonic() + RECOVERY_S
        while True:
            committed = read(self.kafka.bootstrap, [samples], committed=True)
            if len(chaos_check.found(committed, samples.name).barriers) >= topics.EVENT_PARTITIONS:
                return
            if time.monotonic() > deadline:
                raise StartFailed(f"the barrier did not pass every partition; logs in {self._folder}")
            time.sleep(1)

    def figures(self, rounds: Sequence[Round]) -> dict[str, Any]:
        """What stands on Kafka, against what the inputs say."""
        bootstrap, samples = self.kafka.bootstrap, self._host.outputs[0]
        inputs = read(bootstrap, INPUTS, committed=True)
        outputs = read(bootstrap, self._host.outputs, committed=True)
        everything = read(bootstrap, [samples], committed=False)
        by_partition: dict[int, dict[Source, list[LogRecord]]] = {
            p: {source: [] for source in SOURCES} for p in range(topics.EVENT_PARTITIONS)
        }
        for record in inputs:
            by_partition[record.partition][chaos_check.INPUTS[record.topic]].append(record)
        config = JoinConfig(window_us=WINDOW_MS * 1000, bound_us=BOUND_MS * 1000)
        said = chaos_check.found(outputs, samples.name)
        difference = chaos_check.compare(chaos_check.expected(config, by_partition), said)
        visible = [record for record in outputs if record.topic == samples.name]
        return result(rounds, difference, chaos_check.aborted(everything, visible))

    def close(self) -> None:
        """Ends every process."""
        if self._tail is not None:
            self._tail.close()
        if self._traffic is not None:
            self._traffic.stop(10)
        self._host.close()
        self.kafka.stop()


def run_host(folder: Path, name: str, rounds: int, rate: float, seed: int) -> dict[str, Any]:
    """Strikes one host; its figures. Raises LocalError when something did not come back."""
    shutil.rmtree(folder, ignore_errors=True)
    chaos = Chaos(folder, HOSTS[name](folder / name), rate, seed)
    done: list[Round] = []
    say(f"chaos around the join on {name}: {rounds} rounds")
    try:
        chaos.start()
        for number, fault in enumerate(plan(rounds), 1):
            done.append(chaos.strike(number, fault))
            last = done[-1]
            say(
                f"  round {number:2}/{rounds}  {last.fault:<6} {last.victim:<13} at "
                f"{last.impressions_per_s:5.0f} impressions/s, recovered in {last.recovered_s:4.1f} s"
            )
        chaos.drain()
        return chaos.figures(done)
    finally:
        chaos.close()


def run(out: Path, wanted: dict[str, int], skipped: dict[str, str], rate: float, seed: int) -> int:
    """Runs every host for its rounds; 0 when nothing is lost, doubled or unexplained."""
    for name, why in skipped.items():
        say(f"chaos-join: {name} SKIPPED: {why}")
    hosts = {
        name: run_host(out / f"chaos-{name}", name, rounds, rate, seed) for name, rounds in wanted.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "chaos-join.json").write_text(json.dumps(together(hosts, skipped), indent=2) + "\n")
    problems = []
    for name, figures in hosts.items():
        say(f"{name}:")
        for key, value in figures.items():
            if key != "round":
                say(f"  {key:<26} {value}")
        problems += [f"{name}: {problem}" for problem in failures(figures, wanted[name])]
    for problem in problems:
        print(f"chaos-join: FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


def main(argv: list[str]) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m local chaos-join", description=__doc__)
    parser.add_argument(
        "--host", choices=(*HOSTS, "both"), default="both", help="both: Flink when Maven and a JDK are here"
    )
    parser.add_argument("--rounds", type=int, default=20, help="strikes at the joiner")
    parser.add_argument("--flink-rounds", type=int, default=10, help="strikes at Flink")
    parser.add_argument("--rate", type=float, default=250.0, help="impressions per second")
    parser.add_argument("--seed", type=int, default=1, help="of traffic, victims and moments")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out", help="folder of chaos-join.json")
    arguments = parser.parse_args(argv)
    wanted = {JOINER: arguments.rounds, FLINK: arguments.flink_rounds}
    for option, rounds in zip(("--rounds", "--flink-rounds"), wanted.values(), strict=True):
        if not 1 <= rounds <= 1_000:
            parser.error(f"{option} {rounds}: 1 to 1,000")
    if not MIN_RATE <= arguments.rate <= 2_000:
        parser.error(f"--rate {arguments.rate}: {MIN_RATE:.0f} to 2,000")
    skipped: dict[str, str] = {}
    if arguments.host == "both":
        try:
            flink_jar.jar(say)
        except MissingPrerequisite as missing:
            skipped[FLINK] = str(missing)
            del wanted[FLINK]
    else:
        wanted = {arguments.host: wanted[arguments.host]}
    # A client that loses its broker says so ten times a second.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return run(arguments.out.resolve(), wanted, skipped, arguments.rate, arguments.seed)
