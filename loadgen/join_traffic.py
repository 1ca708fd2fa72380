"""``python -m loadgen join-traffic``: the joiner's three inputs, written straight to Kafka at a steady rate.

For chaos and speed of the join alone, at rates that the whole loop does not reach on a small machine. A
request is a snapshot of the served items, an impression of the first of them, and clicks; event time is
wall time. With ``--faults`` the log also has what real ones have: disorder, repeats, late and orphaned
events, lost snapshots, unscored answers, bytes that are no event. On SIGTERM, or after ``--duration-s``, a
barrier goes behind everything, so that a join of the log is complete.

A line of JSON per second says how much Kafka has acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import random
import signal
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rec.events.v1 import events_pb2 as ev
from services.contract import ids, times, topics
from services.contract.errors import LoopError, Overloaded
from services.contract.feature_sets import FEATURE_SETS, WORLD
from services.runtime.kafka_producer import Producer
from services.runtime.settings import KafkaSettings

END_BARRIER = "end-of-traffic"
_TICK_S = 0.02
_US = 1_000_000
# The join does not look at features: any set gives rows of the size that real ones have.
_FEATURES = FEATURE_SETS[WORLD]
_SNAPSHOTS, _IMPRESSIONS, _ACTIONS = (
    topics.FEATURE_SNAPSHOTS.name,
    topics.IMPRESSIONS.name,
    topics.ACTIONS.name,
)


@dataclass(frozen=True)
class Shape:
    """What a request is made of."""

    served: int = 30
    shown: int = 10
    clicks: float = 1.0
    faults: bool = True


@dataclass(order=True)
class Record:
    """A record and the wall time (us) at which it is sent."""

    due_us: int
    number: int
    topic: str
    request_id: str
    value: bytes


class Traffic:
    """Requests and their records, from a seed."""

    def __init__(self, shape: Shape, run: str, seed: int) -> None:
        self._shape = shape
        self._run = run
        self._random = random.Random(seed)
        self._user_features = struct.pack(
            f"<{_FEATURES.user_width}f", *(self._random.random() for _ in range(_FEATURES.user_width))
        )
        self._requests = 0
        self._records = 0

    def request(self, at_us: int) -> Iterator[Record]:
        """The records of one request made at ``at_us``."""
        draw, shape = self._random, self._shape
        request_id = f"{self._run}-{self._requests:08d}"
        self._requests += 1
        items = [draw.getrandbits(63) for _ in range(shape.served)]
        shown_us = at_us + draw.randrange(50_000, 400_000)
        if not self._fault(0.005):
            yield from self._sent(
                at_us + 20_000, _SNAPSHOTS, request_id, self._snapshot(request_id, at_us, items)
            )
        unscored = self._fault(0.005)
        impression = ev.Impression(
            event_id=ids.impression_event_id(request_id),
            request_id=request_id,
            occurred_at=times.from_us(shown_us),
            user_id=self._requests % 20_000,
            item_ids=items[: shape.shown],
            unscored=unscored,
        )
        yield from self._sent(shown_us, _IMPRESSIONS, request_id, ev.EventRecord(impression=impression))
        for _ in range(int(shape.clicks + draw.random())):
            item = items[draw.randrange(shape.shown)]
            if self._fault(0.005):
                item += 1
            clicked_us = shown_us + int(draw.expovariate(1 / 1.5e6))
            about = f"{request_id}-gone" if self._fault(0.003) else request_id
            click = ev.Action(
                event_id=ids.action_event_id(about, item, ev.ACTION_KIND_CLICK),
                request_id=about,
                occurred_at=times.from_us(clicked_us),
                user_id=self._requests % 20_000,
                item_id=item,
                kind=ev.ACTION_KIND_CLICK,
            )
            yield from self._sent(clicked_us, _ACTIONS, about, ev.EventRecord(action=click))
        if self._fault(0.0005):
            yield self._record(at_us, _ACTIONS, request_id, b"not an event")

    def _fault(self, probability: float) -> bool:
        return self._shape.faults and self._random.random() < probability

    def _snapshot(self, request_id: str, at_us: int, items: list[int]) -> ev.EventRecord:
        count = len(items)
        row = struct.pack("<f", self._random.random())
        return ev.EventRecord(
            snapshot=ev.FeatureSnapshot(
                event_id=ids.snapshot_event_id(request_id),
                request_id=request_id,
                occurred_at=times.from_us(at_us),
                user_id=self._requests % 20_000,
                scored_at=times.from_us(at_us + 10_000),
                schema_hash=_FEATURES.schema_hash,
                arm="online",
                item_ids=struct.pack(f"<{count}Q", *items),
                scores=struct.pack(f"<{count}f", *(1 / (2 + place) for place in range(count))),
                user_features=self._user_features,
                # Random bytes say whose row it is; the rest fills it up.
                item_features=(row * _FEATURES.item_width) * count,
            )
        )

    def _sent(self, due_us: int, topic: str, request_id: str, event: ev.EventRecord) -> Iterator[Record]:
        value = event.SerializeToString()
        delay_us = 0
        if self._shape.faults:
            delay_us = self._random.randrange(300_000)
            if self._random.random() < 0.001:
                delay_us += 8_000_000
        yield self._record(due_us + delay_us, topic, request_id, value)
        if self._fault(0.02):
            yield self._record(
                due_us + delay_us + self._random.randrange(2_000_000), topic, request_id, value
            )

    def _record(self, due_us: int, topic: str, request_id: str, value: bytes) -> Record:
        self._records += 1
        return Record(due_us, self._records, topic, request_id, value)


class Writer:
    """Sends what is due; a record that Kafka did not take is sent again, with the same ids."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self.acknowledged = {_SNAPSHOTS: 0, _IMPRESSIONS: 0, _ACTIONS: 0}
        self.retried = 0
        self._again: list[Record] = []

    async def send(self, record: Record) -> None:
        """Hands a record over; waits while too many are pending."""
        while True:
            try:
                key = topics.request_key(record.request_id)
                sent = self._producer.send_nowait(
                    record.topic,
                    record.value,
                    key,
                    partition=topics.partition_of(key, topics.EVENT_PARTITIONS),
                )
                break
            except Overloaded:
                await asyncio.sleep(_TICK_S)
        sent.add_done_callback(lambda answer: self._answered(record, answer))

    def _answered(self, record: Record, answer: asyncio.Future) -> None:
        if answer.cancelled() or answer.exception() is not None:
            self.retried += 1
            self._again.append(record)
        else:
            self.acknowledged[record.topic] += 1

    async def settle(self, timeout_s: float) -> None:
        """Returns when Kafka has taken everything; TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while True:
                await self._producer.flush()
                again, self._again = self._again, []
                if not again:
                    return
                for record in again:
                    await self.send(record)

    async def retry(self) -> None:
        """Sends again what failed so far."""
        again, self._again = self._again, []
        for record in again:
            await self.send(record)

    async def barrier(self, at_us: int) -> None:
        """Behind everything, on every partition of every input."""
        barrier = ev.Barrier(barrier_id=END_BARRIER, occurred_at=times.from_us(at_us))
        value = ev.EventRecord(barrier=barrier).SerializeToString()
        sends = [
            self._producer.send(topic, value, partition=partition)
            for topic in self.acknowledged
            for partition in range(topics.EVENT_PARTITIONS)
        ]
        await asyncio.gather(*sends)


async def run(arguments: argparse.Namespace) -> int:
    """Writes until told to stop; 0 when Kafka has everything and the barrier."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    producer = Producer(KafkaSettings(bootstrap_servers=arguments.kafka), "join-traffic")
    await producer.start()
    shape = Shape(arguments.served, arguments.shown, arguments.clicks, arguments.faults)
    traffic, writer = Traffic(shape, arguments.run, arguments.seed), Writer(producer)
    try:
        await _load(traffic, writer, arguments, stop)
        await writer.settle(arguments.settle_s)
        # Above every event time of the run, clicks included.
        await writer.barrier(time.time_ns() // 1000 + 3600 * _US)
    except (LoopError, TimeoutError) as error:
        print(f"join-traffic: {error!r}", file=sys.stderr)
        return 1
    finally:
        await producer.stop()
    _report(writer, producer)
    return 0


async def _load(traffic: Traffic, writer: Writer, arguments: argparse.Namespace, stop: asyncio.Event) -> None:
    waiting: list[Record] = []
    began_us = next_us = time.time_ns() // 1000
    end_us = began_us + int(arguments.duration_s * _US) if arguments.duration_s else None
    reported = 0.0
    while waiting or not (stop.is_set() or (end_us is not None and next_us >= end_us)):
        now_us = time.time_ns() // 1000
        while next_us <= now_us and not stop.is_set() and (end_us is None or next_us < end_us):
            for record in traffic.request(next_us):
                heapq.heappush(waiting, record)
            next_us += int(_US / arguments.rate)
        while waiting and (waiting[0].due_us <= now_us or stop.is_set()):
            await writer.send(heapq.heappop(waiting))
        await writer.retry()
        if time.monotonic() - reported >= 1:
            reported = time.monotonic()
            _report(writer, None)
        await asyncio.sleep(_TICK_S)


def _report(writer: Writer, producer: Producer | None) -> None:
    line = {"at_s": round(time.time(), 3), **writer.acknowledged, "retried": writer.retried}
    if producer is not None:
        line["ended"] = True
    print(json.dumps(line), flush=True)


def main(argv: list[str]) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m loadgen join-traffic", description=__doc__)
    parser.add_argument("--kafka", default=KafkaSettings().bootstrap_servers, help="bootstrap servers")
    parser.add_argument("--rate", type=float, default=250.0, help="requests (and impressions) per second")
    parser.add_argument("--duration-s", type=float, default=0.0, help="0 = until SIGTERM")
    parser.add_argument("--served", type=int, default=30, help="rows of a snapshot")
    parser.add_argument("--shown", type=int, default=10, help="items of an impression")
    parser.add_argument("--clicks", type=float, default=1.0, help="clicks per request, mean")
    parser.add_argument("--faults", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--run", default="traffic", help="prefix of the request ids")
    parser.add_argument("--settle-s", type=float, default=60.0, help="wait for Kafka at the end, seconds")
    arguments = parser.parse_args(argv)
    if not 0 < arguments.rate <= 100_000:
        parser.error(f"--rate {arguments.rate}: above 0, at most 100,000")
    if not 0 < arguments.shown <= arguments.served <= 1_000:
        parser.error(f"--shown {arguments.shown}, --served {arguments.served}: 0 < shown <= served <= 1,000")
    return asyncio.run(run(arguments))
