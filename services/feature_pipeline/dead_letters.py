"""Records that cannot be used, as they came, with the reason."""

from __future__ import annotations

import asyncio
from typing import Any

from services.contract import topics
from services.contract.errors import LoopError
from services.feature_pipeline import metrics
from services.runtime.kafka_consumer import ConsumerRecord
from services.runtime.kafka_producer import Producer

_MAX_REASON_CHARS = 200


def reject(producer: Producer, record: ConsumerRecord, error: LoopError) -> asyncio.Future[Any]:
    """Sends a record to dead-letters; await the future before moving past the record."""
    metrics.DEAD.labels(record.topic).inc()
    metrics.log.warning(
        "dead letter", topic=record.topic, partition=record.partition, offset=record.offset, reason=str(error)
    )
    reason = str(error)[:_MAX_REASON_CHARS]
    headers = topics.rejection_headers(reason, record.topic, record.partition, record.offset)
    return producer.send_nowait(topics.DEAD_LETTERS.name, record.value, record.key, headers)
