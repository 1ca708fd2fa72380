"""Seeded traffic for the join's hosts: keyed records with disorder, repeats, late and orphaned ones."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator

from oracles.join_logs import IMP, A, Logs, S, action, canonical, heartbeat, impression, snapshot

from rec.events.v1 import events_pb2 as ev
from services.contract import topics
from services.contract.join_events import SOURCES, Source
from services.contract.join_output import HEADER_ITEM_IDS, HEADER_ITEMS, BarrierPassed, Sample
from services.contract.topics import EVENT_PARTITIONS, partition_of, request_key

TOPIC = {
    S: topics.FEATURE_SNAPSHOTS.name,
    IMP: topics.IMPRESSIONS.name,
    A: topics.ACTIONS.name,
}
SOURCE = {name: int(source) for source, name in TOPIC.items()}
MS = 1000
Placed = tuple[Source, int, bytes, bytes]


def traffic(seed: int, requests: int, step_us: int = 10 * MS, start_us: int = 10**15) -> Iterator[Placed]:
    """(source, partition, key, value) in sending order: a request every ``step_us`` of event time."""
    rng = random.Random(seed)
    due: dict[int, list[Placed]] = defaultdict(list)

    def send(source: Source, step: int, request: str, raw: bytes) -> None:
        key = request_key(request)
        for _ in range(1 if rng.random() < 0.9 else 2):
            due[step + rng.randrange(3)].append((source, partition_of(key, EVENT_PARTITIONS), key, raw))

    for step in range(requests + 400):
        if step < requests:
            request, at = f"{seed}-{step}", start_us + step * step_us
            items = rng.sample(range(1, 200), 20)
            shown_at = at + rng.randrange(300) * MS
            shown = rng.sample(items, 5) + ([777] if rng.random() < 0.03 else [])
            if rng.random() < 0.97:
                send(S, step, request, snapshot(request, at, items))
            if rng.random() < 0.97:
                lag = 0 if rng.random() < 0.97 else 300
                raw = impression(request, shown_at, shown, unscored=rng.random() < 0.02)
                send(IMP, step + (shown_at - at) // step_us + lag, request, raw)
            for _ in range(rng.choice([0, 0, 1, 1, 2])):
                acted_at = shown_at + int(rng.expovariate(1 / 400)) * MS
                lag = 0 if rng.random() < 0.97 else 300
                item = rng.choice(shown) if rng.random() < 0.95 else 999
                raw = action(request, acted_at, item)
                send(A, step + (acted_at - at) // step_us + lag, request, raw)
        yield from due.pop(step, ())
        if step % 200 == 50:
            yield A, step % EVENT_PARTITIONS, b"?", b"not an event"


def closing(partitions: int = EVENT_PARTITIONS, at_us: int = 2 * 10**15) -> Iterator[Placed]:
    """Heartbeats after which nothing is open."""
    for source in SOURCES:
        for partition in range(partitions):
            yield source, partition, b"", heartbeat(at_us)


def logs_by_partition(placed: list[Placed]) -> list[Logs]:
    """What stands on each partition when the records are sent in order."""
    logs: list[Logs] = [{source: [] for source in SOURCES} for _ in range(EVENT_PARTITIONS)]
    for source, partition, _, raw in placed:
        logs[partition][source].append(raw)
    return logs


def said_in_kafka(partition: int, records: dict[str, list]) -> Counter[tuple]:
    """Canonical tuples of the committed records: samples of this partition, rows that came from it."""
    said: Counter[tuple] = Counter()
    for record in records[topics.SAMPLES.name]:
        if record.partition != partition:
            continue
        parsed = ev.SampleRecord.FromString(record.value)
        if parsed.WhichOneof("record") == "barrier":
            said[canonical(BarrierPassed(parsed.barrier.barrier_id, 0))] += 1
            continue
        sample = parsed.sample
        assert sample.HasField("joined_at")
        assert record.key == request_key(sample.request_id)
        sample.ClearField("joined_at")
        rows, positive = len(sample.item_ids) // 8, sample.HasField("acted_at")
        said[canonical(Sample(sample.SerializeToString(), sample.request_id, rows, positive))] += 1
    for record in records[topics.LATE_EVENTS.name] + records[topics.DEAD_LETTERS.name]:
        headers = dict(record.headers)
        if int(headers[topics.HEADER_ORIGIN_PARTITION]) != partition:
            continue
        source = SOURCE[headers[topics.HEADER_ORIGIN_TOPIC].decode()]
        where = (source, int(headers[topics.HEADER_ORIGIN_OFFSET]))
        items = int(headers[HEADER_ITEMS])
        reason = headers[topics.HEADER_REASON].decode()
        assert (reason == "malformed") == (record.topic == topics.DEAD_LETTERS.name)
        said["rejected", reason, *where, items, headers.get(HEADER_ITEM_IDS, b"")] += 1
    return said
