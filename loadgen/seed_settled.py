"""Waits until the feature pipeline has folded what a seed wrote.

A catalogue of 100,000 items is some seconds of work: without the wait the first requests share the machine
with it, and the first features of a replay lack their categories.
"""

from __future__ import annotations

import asyncio
import time

from services.contract import topics
from services.contract.errors import Unavailable
from services.contract.feature_events import FOLD_GROUP, SPLIT_GROUP
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.kafka_transactions import committed_offsets
from services.runtime.settings import KafkaSettings

_POLL_S = 0.5
# Stage by stage: what the first has written is the second one's to take.
STAGES = ((topics.CATALOG.name, SPLIT_GROUP), (topics.FEATURE_EVENTS.name, FOLD_GROUP))


async def wait(settings: KafkaSettings, timeout_s: float) -> None:
    """Returns once everything that stands in the log now is in Redis; Unavailable when it is not in time."""
    deadline = time.monotonic() + timeout_s
    reader = LogReader(settings, "loadgen-settled")
    await reader.start()
    try:
        for topic, group in STAGES:
            ends = await reader.end_offsets(await reader.partitions(topic))
            while behind := _behind(ends, await committed_offsets(settings, group, list(ends))):
                if time.monotonic() >= deadline:
                    raise Unavailable(
                        f"feature_pipeline has not folded the seed in {timeout_s:.0f} s: "
                        f"{behind:,} records of {topic} are left"
                    )
                await asyncio.sleep(_POLL_S)
    finally:
        await reader.stop()


def _behind(ends: dict[TopicPartition, int], committed: dict[TopicPartition, tuple[int, str]]) -> int:
    return sum(max(0, end - committed.get(where, (0, ""))[0]) for where, end in ends.items())
