"""Speed of the pure join on one core: ``python -m benchmarks.bench_join_core [requests]``.

A request: a snapshot of 100 rows (16 floats each), an impression of 10 of them, a click on every tenth
item, in event-time order; samples are serialised as the joiner does. Prints records, joined items and bytes
per second.
"""

from __future__ import annotations

import struct
import sys
import time

import numpy as np

from rec.events.v1 import events_pb2 as ev
from services.contract import times
from services.contract.features import ITEM_WIDTH, SCHEMA_HASH, USER_WIDTH
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.join_events import Source
from services.contract.join_output import Sample
from services.joiner.outgoing import outgoing

SERVED, SHOWN = 100, 10
STEP_US = 1_000
START_US = 1_700_000_000_000_000


def records(requests: int) -> list[tuple[Source, bytes]]:
    """The log in feeding order."""
    rng = np.random.default_rng(1)
    features = rng.random((SERVED, ITEM_WIDTH), dtype=np.float32).tobytes()
    user = rng.random(USER_WIDTH, dtype=np.float32).tobytes()
    scores = rng.random(SERVED, dtype=np.float32).tobytes()
    placed: list[tuple[int, Source, bytes]] = []
    for n in range(requests):
        request, at = f"request-{n:012d}", START_US + n * STEP_US
        items = rng.integers(1, 2**63, SERVED, dtype=np.uint64)
        snapshot = ev.EventRecord()
        snapshot.snapshot.event_id = f"{request}:scored"
        snapshot.snapshot.request_id = request
        times.set_us(snapshot.snapshot.occurred_at, at)
        snapshot.snapshot.schema_hash = SCHEMA_HASH
        snapshot.snapshot.item_ids = items.tobytes()
        snapshot.snapshot.scores = scores
        snapshot.snapshot.user_features = user
        snapshot.snapshot.item_features = features
        placed.append((at, Source.SNAPSHOTS, snapshot.SerializeToString()))
        shown = [int(item) for item in items[:SHOWN]]
        seen = at + 500_000
        impression = ev.Impression(
            event_id=f"{request}:shown", request_id=request, occurred_at=times.from_us(seen), item_ids=shown
        )
        placed.append((seen, Source.IMPRESSIONS, ev.EventRecord(impression=impression).SerializeToString()))
        clicked = seen + 3_000_000
        action = ev.Action(
            event_id=f"{request}:{shown[0]}:1",
            request_id=request,
            occurred_at=times.from_us(clicked),
            item_id=shown[int(rng.integers(SHOWN))],
            kind=ev.ACTION_KIND_CLICK,
        )
        placed.append((clicked, Source.ACTIONS, ev.EventRecord(action=action).SerializeToString()))
    placed.sort(key=lambda row: row[0])
    end = placed[-1][0] + 10**9
    beat = ev.EventRecord(heartbeat=ev.Heartbeat(occurred_at=times.from_us(end))).SerializeToString()
    return [(source, raw) for _, source, raw in placed] + [(source, beat) for source in Source]


def main(requests: int) -> None:
    """Measures and prints."""
    log = records(requests)
    task = JoinTask(JoinConfig(window_us=20_000_000, bound_us=2_000_000))
    offsets = dict.fromkeys(Source, 0)
    items = size = most = 0
    began = time.process_time()
    for source, raw in log:
        for output in task.feed(source, offsets[source], raw):
            if isinstance(output, Sample):
                items += output.rows
            size += len(outgoing(output, 0, None, START_US).value)
        offsets[source] += 1
        most = max(most, task.held_events)
    took = time.process_time() - began
    assert items == requests * SHOWN, (items, requests * SHOWN)
    row_bytes = struct.calcsize("<Q") + 4 * (3 + ITEM_WIDTH)
    print(
        f"{len(log) / took:,.0f} records/s, {items / took:,.0f} joined items/s of CPU time, "
        f"{size / took / 1e6:,.1f} MB/s out ({row_bytes} bytes a row), "
        f"{1e6 * took / len(log):.1f} us a record, at most {most:,} events held"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30_000)
