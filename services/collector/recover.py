"""The run clock after a restart: the newest event time at the ends of the event topics.

Without it a collector that was killed just as traffic stopped would write no heartbeats, and the last
windows would never close.
"""

from __future__ import annotations

import time

from services.collector.records import BARRIER_TOPICS, record_time_us
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.settings import KafkaSettings
from services.runtime.telemetry import get_logger

log = get_logger(__name__)
_TIMEOUT_S = 10.0
# A few records from each end: the last one may be older than its neighbours, or not decode.
_TAIL = 20


async def newest_event_us(settings: KafkaSettings, client_id: str) -> int | None:
    """The largest event time among the last records of each partition; None when the topics are empty."""
    reader = LogReader(settings, client_id)
    await reader.start()
    try:
        return await _scan(reader)
    finally:
        await reader.stop()


async def _scan(reader: LogReader) -> int | None:
    everywhere = [where for topic in BARRIER_TOPICS for where in await reader.partitions(topic.name)]
    begins, ends = await reader.beginning_offsets(everywhere), await reader.end_offsets(everywhere)
    unread: dict[TopicPartition, int] = {
        where: ends[where] for where in everywhere if ends[where] > begins[where]
    }
    reader.assign({where: max(begins[where], ends[where] - _TAIL) for where in unread})
    newest: int | None = None
    deadline = time.monotonic() + _TIMEOUT_S
    while unread and time.monotonic() < deadline:
        for where, found in (await reader.poll(timeout_ms=100)).items():
            for record in found:
                event_us = record_time_us(record.value or b"")
                if event_us is not None:
                    newest = event_us if newest is None else max(newest, event_us)
            if found[-1].offset + 1 >= unread.get(where, 0):
                unread.pop(where, None)
    if unread:
        log.warning("clock recovered from some partitions only", unread=[str(where) for where in unread])
    return newest
