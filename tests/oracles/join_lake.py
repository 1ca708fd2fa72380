"""Logs as tables of the lake, and what a join over them says, as the canonical tuples of join_logs."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import pyarrow as pa
from oracles.join_logs import (
    IMP,
    REQUESTS,
    A,
    Logs,
    S,
    action,
    barrier,
    heartbeat,
    impression,
    snapshot,
)

from rec.events.v1 import events_pb2 as ev
from services.contract.join_events import SOURCES, Source
from services.contract.join_output import Output, Sample
from services.contract.lake_rows import LogRecord, to_table

TABLES = ("snapshots", "impressions", "actions")
CUT = ("item_id", "label", "position", "score", "item_features", "label_version", "sample_rate")
# What a row has only because it stands in a topic.
OF_THE_RECORD = ("partition", "offset", "row", "appended_ms", "joined_us")


def lake_of(partitions: Sequence[Logs]) -> dict[str, pa.Table]:
    """The logs of some partitions, as the lake has them."""
    return {
        name: to_table(
            name,
            [
                LogRecord(partition, offset, 0, raw)
                for partition, logs in enumerate(partitions)
                for offset, raw in enumerate(logs[source])
            ],
        )
        for source, name in zip(SOURCES, TABLES, strict=True)
    }


def said_offline(samples: pa.Table, reasons: pa.Table) -> dict[int, Counter[tuple]]:
    """Partition -> canonical tuples with their counts (barriers are not said)."""
    said: dict[int, Counter[tuple]] = defaultdict(Counter)
    records: dict[tuple, list[tuple]] = defaultdict(list)
    for row in samples.to_pylist():
        cut = tuple(row[name] for name in CUT)
        head = (row["request_id"], row["occurred_us"], row["impressed_us"], row["acted_us"])
        if row["acted_us"] is None:
            records[row["partition"], *head].append(cut)
        else:
            said[row["partition"]]["sample", *head, (cut,)] += 1
    for (partition, *head), rows in records.items():
        said[partition]["sample", *head, tuple(rows)] += 1
    for row in reasons.to_pylist():
        where = (row["source"], row["offset"], row["items"], row["item_ids"])
        said[row["partition"]]["rejected", row["reason"], *where] += 1
    return said


def lake_samples(outputs: Iterable[Output]) -> pa.Table:
    """The samples of a stream, as the lake has them."""
    records = [
        ev.SampleRecord(sample=output.message).SerializeToString()
        for output in outputs
        if isinstance(output, Sample)
    ]
    return to_table("samples", [LogRecord(0, offset, 0, raw) for offset, raw in enumerate(records)])


def rows_of(samples: pa.Table) -> Counter[tuple]:
    """All columns of samples but those of their record, as a multiset."""
    columns = samples.drop_columns(list(OF_THE_RECORD)).to_pydict()
    return Counter(zip(*columns.values(), strict=True))


def without_barriers(said: Counter[tuple]) -> Counter[tuple]:
    """What a batch join says, too."""
    return Counter({what: count for what, count in said.items() if what[0] != "barrier"})


def crowded(seed: int) -> Logs:
    """Logs in which three request ids are used over and over: seconds, repeats, chains of both, garbage."""
    rng = random.Random(seed)
    placed: dict[Source, list[tuple[int, bytes]]] = {source: [] for source in SOURCES}
    span = rng.choice([30, 80, 200])
    for _ in range(rng.randint(10, 40)):
        source, at = rng.choice(SOURCES), rng.randint(0, span)
        raw = _crowded_record(rng, source, at)
        for _ in range(rng.choice([1, 1, 1, 1, 2, 3])):
            placed[source].append((at + rng.choice([0, 0, 0, 1, 2, 3, 4, 9, 20]), raw))
    for at in rng.sample(range(span), rng.choice([0, 0, 1, 2])):
        for source in rng.choice([SOURCES, SOURCES, (S, A), (IMP,)]):
            placed[source].append((at + rng.choice([0, 0, 2, 5]), barrier(f"at {at}", at)))
    for source in SOURCES:
        if rng.random() < 0.8:
            placed[source].append((1_000, heartbeat(rng.choice([40, 100, 1_000]))))
    return {s: [raw for _, raw in sorted(placed[s], key=lambda pair: pair[0])] for s in SOURCES}


def _crowded_record(rng: random.Random, source: Source, at: int) -> bytes:
    request, name = rng.choice(REQUESTS), rng.choice([None, None, "x", "y"])
    items = rng.sample(range(1, 6), rng.randint(1, 4))
    odd = rng.random()
    if odd < 0.1:
        return rng.choice([heartbeat(at), heartbeat(at), barrier(rng.choice("pq"), at), b"not an event"])
    if source is S:
        return snapshot(request, at, items, name)
    if source is IMP:
        positions = rng.sample(range(50), len(items)) if odd < 0.4 else ()
        return impression(request, at, items, name, unscored=odd > 0.92, positions=positions)
    assert source is A
    kinds = [ev.ACTION_KIND_CLICK] * 3 + [ev.ACTION_KIND_LIKE, ev.ACTION_KIND_HIDE]
    return action(request, at, rng.randint(1, 5), name, rng.choice(kinds))
