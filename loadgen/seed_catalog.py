"""Writes a whole catalogue to its topic, in the producer's own batches: 100,000 items in a second or two."""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import AIOKafkaProducer

from rec.events.v1.events_pb2 import Item
from services.contract import topics
from services.runtime.kafka_connect import connected, connection_options
from services.runtime.settings import KafkaSettings

BATCH_BYTES = 512 * 1024


async def write(settings: KafkaSettings, items: Iterable[Item]) -> int:
    """Produces the items in order with acks=all; returns how many. Unavailable without Kafka, KafkaError when
    a batch is refused.
    """
    producer = await connected(
        settings,
        lambda: AIOKafkaProducer(
            **connection_options(settings),
            client_id="loadgen-seed",
            acks="all",
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES,
            max_request_size=2 * BATCH_BYTES,
        ),
        "seed",
    )
    count = 0
    try:
        sent = []
        batch = producer.create_batch()
        for item in items:
            key, value = topics.entity_key(item.item_id), item.SerializeToString()
            if batch.append(key=key, value=value, timestamp=None) is None:
                sent.append(await producer.send_batch(batch, topics.CATALOG.name, partition=0))
                batch = producer.create_batch()
                batch.append(key=key, value=value, timestamp=None)
            count += 1
        if batch.record_count():
            sent.append(await producer.send_batch(batch, topics.CATALOG.name, partition=0))
        for acknowledged in sent:
            await acknowledged
    finally:
        await producer.stop()
    return count
