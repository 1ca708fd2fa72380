"""The samples on a topic as rows, to compare what two joins have written."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from rec.events.v1 import events_pb2 as ev
from services.contract import topics
from services.contract.columns import F32, U32, U64

# request id, item, label, position, score, features.
Row = tuple[str, int, float, int, float, bytes]
Offsets = dict[int, int]


def rows_of(value: bytes) -> list[Row]:
    """The rows of a SampleRecord; none for a barrier."""
    record = ev.SampleRecord.FromString(value)
    if record.WhichOneof("record") != "sample":
        return []
    sample = record.sample
    items = np.frombuffer(sample.item_ids, U64).tolist()
    width = len(sample.item_features) // len(items)
    return list(
        zip(
            [sample.request_id] * len(items),
            items,
            np.frombuffer(sample.labels, F32).tolist(),
            np.frombuffer(sample.positions, U32).tolist(),
            np.frombuffer(sample.scores, F32).tolist(),
            [sample.item_features[width * k : width * (k + 1)] for k in range(len(items))],
            strict=True,
        )
    )


def labels(rows: Counter[Row]) -> Counter[tuple[str, int, float]]:
    """Request, item and label alone."""
    short: Counter[tuple[str, int, float]] = Counter()
    for row, count in rows.items():
        short[row[:3]] += count
    return short


def committed_rows(bootstrap: str, topic: topics.Topic, begin: Offsets) -> tuple[Counter[Row], Offsets]:
    """How often each row stands in committed transactions from some offsets on; the ends."""
    return asyncio.run(_committed_rows(bootstrap, topic, begin))


async def _committed_rows(
    bootstrap: str, topic: topics.Topic, begin: Offsets
) -> tuple[Counter[Row], Offsets]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic.name, p) for p in range(topic.partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        for where in partitions:
            consumer.seek(where, begin.get(where.partition, 0))
        rows: Counter[Row] = Counter()
        while any([await consumer.position(where) < ends[where] for where in partitions]):
            for batch in (await consumer.getmany(timeout_ms=500, max_records=5_000)).values():
                for record in batch:
                    rows.update(rows_of(record.value or b""))
        return rows, {where.partition: ends[where] for where in partitions}
    finally:
        await consumer.stop()
