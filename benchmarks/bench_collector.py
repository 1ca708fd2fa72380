"""Events that the collector acknowledges, beside a bare producer: ``python -m benchmarks.bench_collector``
(docs/benchmarks.md).

The same batches (impressions of ten items, and a click for each) go to the collector as LogEvents, which
answers when Kafka has acknowledged every event, and straight to Kafka by a bare aiokafka producer with the
same options (acks=all, idempotent). By turns, with as many batches in flight. The collector's client is on
the same cores, and so is what it costs to be asked over gRPC. Writes out/bench-collector.json; exit code 1
when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import uvloop

from benchmarks import rows
from benchmarks.calibration import calibrate
from benchmarks.closed_loop import Phase, closed_loop, grpc_caller
from benchmarks.command import command_parser, leave
from benchmarks.cpu import cpu_s
from benchmarks.figures import spread
from benchmarks.peer import foreign
from benchmarks.result import machine, versions
from benchmarks.service import Service
from local.kafka_server import KafkaServer
from local.paths import REPOSITORY
from rec.events.v1 import events_pb2
from rec.v1 import collector_pb2
from services.contract import times, topics
from services.contract.topics import partition_of, request_key
from services.runtime.kafka_outbox import client_options
from services.runtime.settings import KafkaSettings

METHOD = "/rec.v1.CollectorService/LogEvents"
SHOWN = 10
BATCHES = 200
WARM_UP_S = 0.5
# Below this the peer is not what it should be.
FLOOR_EVENTS_PER_S = 10_000


def requests(events: int) -> list[collector_pb2.LogEventsRequest]:
    """BATCHES batches of ``events`` events: half are impressions, each has a click on one of its items."""
    now_us = time.time_ns() // 1000
    made = []
    for batch in range(BATCHES):
        asked = collector_pb2.LogEventsRequest()
        for number in range(events // 2):
            request_id, user = f"bench-{batch:06d}-{number:06d}", 1 + batch * events + number
            at = times.from_us(now_us + batch * 1_000 + number)
            shown = [1 + (user * 7 + place) % 100_000 for place in range(SHOWN)]
            asked.impressions.append(
                events_pb2.Impression(
                    event_id=f"{request_id}:0",
                    request_id=request_id,
                    occurred_at=at,
                    user_id=user,
                    item_ids=shown,
                )
            )
            asked.actions.append(
                events_pb2.Action(
                    event_id=f"{request_id}:1",
                    request_id=request_id,
                    occurred_at=at,
                    user_id=user,
                    item_id=shown[number % SHOWN],
                    kind=events_pb2.ACTION_KIND_CLICK,
                )
            )
        made.append(asked)
    return made


def records(asked: list[collector_pb2.LogEventsRequest]) -> pa.Table:
    """The same as records for Kafka: what the collector writes of them."""
    columns: dict[str, list[Any]] = {name: [] for name in ("batch", "topic", "partition", "key", "value")}
    for batch, request in enumerate(asked):
        parts = [
            (topics.IMPRESSIONS, "impression", request.impressions),
            (topics.ACTIONS, "action", request.actions),
        ]
        for topic, field, events in parts:
            for event in events:
                key = request_key(event.request_id)
                value = events_pb2.EventRecord(**{field: event}).SerializeToString()
                one = (batch, topic.name, partition_of(key, topic.partitions), key, value)
                for column, part in zip(columns.values(), one, strict=True):
                    column.append(part)
    return pa.table(columns)


def producer_options() -> dict[str, Any]:
    """Of the collector's own producer, as its settings have them."""
    options = client_options(KafkaSettings(), "bare")
    return {name: value for name, value in options.items() if name != "bootstrap_servers"}


class Bench:
    """Both sides on one Kafka."""

    def __init__(self, given: argparse.Namespace, folder: Path, kafka: KafkaServer) -> None:
        self._given = given
        asked = requests(given.events)
        pq.write_table(records(asked), folder / "batches.parquet")
        self._kafka = kafka
        self._collector = Service("services.collector", folder, {"KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap})
        self._bare = foreign(
            "collector_bare",
            sys.executable,
            [
                str(folder / "batches.parquet"),
                kafka.bootstrap,
                json.dumps(producer_options()),
                str(given.in_flight),
            ],
            folder,
        )
        self._next = itertools.cycle(one.SerializeToString() for one in asked).__next__
        self.per_s: dict[str, list[float]] = {"ours": [], "bare": []}
        self.cpu_us: dict[str, list[float]] = {
            "ours": [],
            "bare": [],
            "kafka_ours": [],
            "kafka_bare": [],
            "client": [],
        }
        self.refused = 0

    def run(self) -> None:
        """A round that does not count, then the others."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for number in range(-1, self._given.rounds):
                ours = runner.run(self._ask())
                bare = self._send()
                if number >= 0:
                    self._note(ours, bare)

    def _pids(self) -> Mapping[str, int]:
        assert self._kafka.child is not None
        return {"ours": self._collector.child.pid, "kafka": self._kafka.child.pid}

    async def _ask(self) -> Phase:
        return await closed_loop(
            grpc_caller(self._collector.target, METHOD),
            self._next,
            self._pids(),
            concurrency=self._given.in_flight,
            seconds=self._given.seconds,
            warm_up_s=WARM_UP_S,
        )

    def _send(self) -> tuple[float, float, float, float]:
        """Records, seconds, CPU of the producer, CPU of Kafka. The collector stands still: it would write
        heartbeats."""
        self._collector.child.send(signal.SIGSTOP)
        before = cpu_s(self._pids()["kafka"])
        try:
            sent, took, used = self._bare.ask("send", self._given.seconds)
        finally:
            self._collector.child.send(signal.SIGCONT)
        return sent, took, used, cpu_s(self._pids()["kafka"]) - before

    def _note(self, ours: Phase, bare: tuple[float, float, float, float]) -> None:
        events = len(ours.latencies_ms) * self._given.events
        said = [collector_pb2.LogEventsResponse.FromString(one).accepted for one in ours.looked_at]
        self.refused += sum(accepted != self._given.events for accepted in said)
        self.per_s["ours"].append(events / ours.wall_s)
        sent, took, used, of_kafka = bare
        self.per_s["bare"].append(sent / took)
        for name, value, count in (
            ("ours", ours.cpu_s["ours"], events), ("kafka_ours", ours.cpu_s["kafka"], events),
            ("client", ours.cpu_s["client"], events), ("bare", used, sent), ("kafka_bare", of_kafka, sent),
        ):  # fmt: skip
            self.cpu_us[name].append(value * 1e6 / count)
        print(
            f"  ours {self.per_s['ours'][-1]:8,.0f} events/s, bare {self.per_s['bare'][-1]:8,.0f}",
            file=sys.stderr,
        )

    def close(self) -> None:
        """Ends both."""
        self._bare.close()
        self._collector.close()


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All rounds, on a Kafka of its own."""
    where, here = machine(), calibrate()
    folder = given.out.resolve() / "bench-collector"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kafka = KafkaServer(folder / "kafka")
    kafka.start()
    try:
        kafka.create_topics()
        bench = Bench(given, folder, kafka)
        try:
            bench.run()
        finally:
            bench.close()
    finally:
        kafka.stop()
    healthy = spread(bench.per_s["bare"])["median"] >= here.floor(FLOOR_EVENTS_PER_S)
    found = rows.row("collector_vs_bare_producer", bench.per_s["ours"], bench.per_s["bare"], healthy=healthy)
    return {
        "rows": [found],
        "cpu_us_per_event": {name: spread(of, 1) for name, of in bench.cpu_us.items()},
        "refused": bench.refused,
        "events_per_batch": given.events,
        "batches_in_flight": given.in_flight,
        "producer": producer_options(),
        "rounds": given.rounds,
        "calibration": vars(here),
        "machine": where,
        "versions": versions("aiokafka", "grpcio", "protobuf"),
    }


def main(argv: list[str]) -> int:
    parser = command_parser("bench_collector", __doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each side a round")
    parser.add_argument("--events", type=int, default=100, help="of a batch, at most 1,000")
    parser.add_argument(
        "--in-flight", type=int, default=24, help="batches that wait for their acknowledgement"
    )
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out")
    given = parser.parse_args(argv)
    result = measure(given)
    result["missed"] = rows.missed(result["rows"])
    if result["refused"]:
        result["missed"].append(f"{result['refused']} batches were not acknowledged whole")
    cpu = [
        f"CPU us an event, {name}: {of['median']} ({of['min']} to {of['max']})"
        for name, of in result["cpu_us_per_event"].items()
    ]
    return leave("bench-collector", result, given.out, "\n\n".join([rows.table(result["rows"]), *cpu]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
