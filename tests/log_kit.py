"""What a stack's log says of its samples and of one lineage: who was trained by whom, counted id by id."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from numpy.typing import NDArray

from rec.events.v1.events_pb2 import SampleRecord
from rec.model.v1 import model_pb2
from services.contract import columns, topics
from services.contract.model_state import ModelState
from tests.rig_kit import Chain

# (partition, offset, record).
Samples = list[tuple[int, int, SampleRecord]]


@asynccontextmanager
async def _reading(bootstrap: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def _committed(consumer: AIOKafkaConsumer, topic: str, partition: int) -> AsyncIterator[ConsumerRecord]:
    """Everything committed in a partition."""
    where = TopicPartition(topic, partition)
    consumer.assign([where])
    await consumer.seek_to_beginning(where)
    end = (await consumer.end_offsets([where]))[where]
    while await consumer.position(where) < end:
        for record in (await consumer.getmany(timeout_ms=500)).get(where, []):
            yield record


async def samples_of(bootstrap: str) -> Samples:
    """All samples."""
    async with _reading(bootstrap) as consumer:
        return [
            (partition, record.offset, SampleRecord.FromString(record.value))
            for partition in range(topics.SAMPLES.partitions)
            async for record in _committed(consumer, topics.SAMPLES.name, partition)
        ]


async def chain_of(bootstrap: str, base: model_pb2.BaseRef, first: ModelState, generation: int) -> Chain:
    """A generation's chain from its base (``first``, which is changed) on; an AssertionError where it is
    broken."""
    chain = Chain(first, base, generation)
    async with _reading(bootstrap) as consumer:
        async for record in _committed(consumer, topics.MODEL_DELTAS.name, base.delta_partition):
            chain.offer(record)
    return chain


async def fates_of(bootstrap: str) -> Counter[str]:
    """Shown items by what became of them: "sample", else the reason."""
    found: Counter[str] = Counter()
    for _, _, record in await samples_of(bootstrap):
        found["sample"] += len(items_of(record))
    async with _reading(bootstrap) as consumer:
        async for record in _committed(consumer, topics.LATE_EVENTS.name, 0):
            headers = {name: value.decode() for name, value in record.headers}
            found[headers[topics.HEADER_REASON]] += int(headers.get("items", 0))
    return +found


def items_of(record: SampleRecord) -> NDArray[np.uint64]:
    """The items of a sample; none of a barrier."""
    return columns.decode("item_ids", record.sample.item_ids, columns.U64)


def ids_of(state: ModelState) -> dict[str, Counter[int]]:
    """How often each id was counted, admitted or not."""
    found = {}
    for name in ("user", "item"):
        table = state.tables[name]
        ids, slots = table.ids()
        pending_ids, pending_counts, _ = table.pending.items()
        found[name] = Counter(dict(zip(ids.tolist(), table.counts[slots].tolist(), strict=True)))
        found[name].update(dict(zip(pending_ids.tolist(), pending_counts.tolist(), strict=True)))
    return found


def trained_once(
    before: dict[str, Counter[int]],
    cut: dict[int, int],
    last: ModelState,
    samples: Samples,
) -> None:
    """Each row behind the cut is in the counts of its user and its item, exactly once."""
    behind = {name: Counter(counts) for name, counts in before.items()}
    rows, pairs = 0, Counter()
    for partition, offset, record in samples:
        items = items_of(record).tolist()
        pairs.update((record.sample.request_id, item) for item in items)
        if offset >= cut[partition]:
            rows += len(items)
            behind["user"][record.sample.user_id] += len(items)
            behind["item"].update(items)
    assert max(pairs.values()) == 1, "the log itself holds no sample twice"
    assert ids_of(last) == behind
    assert rows > 0
