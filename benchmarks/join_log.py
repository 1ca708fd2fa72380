"""The log that the benchmarks of the join read: one request every ``step_us`` of event time.

A request: a snapshot of 100 rows (16 floats each), half a second later an impression of the first ten of
them, three seconds after that a click on one of these. Nothing is late, repeated or out of order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from aiokafka import AIOKafkaProducer

from rec.events.v1 import events_pb2 as ev
from services.contract import times, topics
from services.contract.feature_sets import FEATURE_SETS, WORLD
from services.contract.join_events import SOURCES, Source

SERVED, SHOWN = 100, 10
FEATURES = FEATURE_SETS[WORLD]
STEP_US = 1_000
SHOWN_AFTER_US, CLICKED_AFTER_US = 500_000, 3_000_000
START_US = 1_700_000_000_000_000
TOPIC = {
    Source.SNAPSHOTS: topics.FEATURE_SNAPSHOTS,
    Source.IMPRESSIONS: topics.IMPRESSIONS,
    Source.ACTIONS: topics.ACTIONS,
}
# Acknowledgements that may be outstanding while the log is written.
IN_FLIGHT = 5_000


class Entry(NamedTuple):
    """A record of the log."""

    source: Source
    request_id: str
    raw: bytes


def entries(requests: int, step_us: int = STEP_US, shown_after_us: int = SHOWN_AFTER_US) -> Iterator[Entry]:
    """The log in the order of its event times."""
    later: tuple[deque[tuple[int, Entry]], deque[tuple[int, Entry]]] = (deque(), deque())
    for at, snapshot, impression, click in _requests(requests, step_us, shown_after_us):
        yield from _due(later, at)
        yield snapshot
        later[0].append((at + shown_after_us, impression))
        later[1].append((at + shown_after_us + CLICKED_AFTER_US, click))
    yield from _due(later, START_US + requests * step_us + shown_after_us + CLICKED_AFTER_US)


def _due(queues: tuple[deque[tuple[int, Entry]], ...], now_us: int) -> Iterator[Entry]:
    while True:
        waiting = [queue for queue in queues if queue and queue[0][0] <= now_us]
        if not waiting:
            return
        yield min(waiting, key=lambda queue: queue[0][0]).popleft()[1]


def _requests(requests: int, step_us: int, shown_after_us: int) -> Iterator[tuple[int, Entry, Entry, Entry]]:
    rng = np.random.default_rng(1)
    features = rng.random((SERVED, FEATURES.item_width), dtype=np.float32).tobytes()
    user = rng.random(FEATURES.user_width, dtype=np.float32).tobytes()
    scores = rng.random(SERVED, dtype=np.float32).tobytes()
    for n in range(requests):
        request, at = f"request-{n:012d}", START_US + n * step_us
        items = rng.integers(1, 2**63, SERVED, dtype=np.uint64)
        snapshot = ev.EventRecord()
        snapshot.snapshot.event_id = f"{request}:scored"
        snapshot.snapshot.request_id = request
        times.set_us(snapshot.snapshot.occurred_at, at)
        snapshot.snapshot.schema_hash = FEATURES.schema_hash
        snapshot.snapshot.item_ids = items.tobytes()
        snapshot.snapshot.scores = scores
        snapshot.snapshot.user_features = user
        snapshot.snapshot.item_features = features
        shown = [int(item) for item in items[:SHOWN]]
        impression = ev.Impression(
            event_id=f"{request}:shown",
            request_id=request,
            occurred_at=times.from_us(at + shown_after_us),
            item_ids=shown,
        )
        action = ev.Action(
            event_id=f"{request}:{shown[0]}:1",
            request_id=request,
            occurred_at=times.from_us(at + shown_after_us + CLICKED_AFTER_US),
            item_id=shown[int(rng.integers(SHOWN))],
            kind=ev.ACTION_KIND_CLICK,
        )
        yield (
            at,
            Entry(Source.SNAPSHOTS, request, snapshot.SerializeToString()),
            Entry(Source.IMPRESSIONS, request, ev.EventRecord(impression=impression).SerializeToString()),
            Entry(Source.ACTIONS, request, ev.EventRecord(action=action).SerializeToString()),
        )


def heartbeat(occurred_us: int) -> bytes:
    """Moves an input's clock."""
    beat = ev.Heartbeat(occurred_at=times.from_us(occurred_us))
    return ev.EventRecord(heartbeat=beat).SerializeToString()


def barrier(barrier_id: str, requests: int) -> bytes:
    """Closes every window of the log."""
    end = times.from_us(START_US + requests * STEP_US + 3600 * 1_000_000)
    return ev.EventRecord(barrier=ev.Barrier(barrier_id=barrier_id, occurred_at=end)).SerializeToString()


async def write_log(bootstrap: str, requests: int, barrier_id: str) -> dict[Source, tuple[int, int]]:
    """Writes the log and a barrier behind it on every partition; (records, bytes) of each input."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        linger_ms=20,
        max_batch_size=512 * 1024,
        max_request_size=8 * 1024 * 1024,
        enable_idempotence=True,  # a retry must not change the order
    )
    await producer.start()
    written = dict.fromkeys(SOURCES, (0, 0))
    futures: list[Any] = []
    for source, request_id, raw in entries(requests):
        key = topics.request_key(request_id)
        where = topics.partition_of(key, topics.EVENT_PARTITIONS)
        futures.append(await producer.send(TOPIC[source].name, raw, key=key, partition=where))
        count, size = written[source]
        written[source] = count + 1, size + len(raw)
        if len(futures) >= IN_FLIGHT:
            await asyncio.gather(*futures)
            futures.clear()
    last = barrier(barrier_id, requests)
    for topic in TOPIC.values():
        futures += [
            await producer.send(topic.name, last, partition=partition)
            for partition in range(topics.EVENT_PARTITIONS)
        ]
    await asyncio.gather(*futures)
    await producer.stop()
    return written
