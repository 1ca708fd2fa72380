"""A broker's start cache: what a training run has loaded, linked and counted, kept for the starts after it.

A broker loads 10,000 classes before it listens. From the cache they come linked, with the training run's
profile of what is worth compiling: a start takes a quarter of the CPU. Java makes the cache when the process
ends; one that does not fit (other jars, another Java) is refused by Java itself, which then starts as usual.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from local.java import start_cache
from local.kafka_server import KafkaServer
from local.paths import cache_dir
from services.contract import topics

# Writing it takes longer than the broker's own end.
_END_S = 120.0
_TOPIC = topics.ALL[0].name
_GROUP = "training"
_ROUNDS = 200


def make_start_cache(jar_folder: Path, progress: Callable[[str], None]) -> None:
    """Makes the cache if there is none: some 20 s, once. Where Java makes none, nothing."""
    cache = start_cache(jar_folder.name)
    if cache is None or cache.is_file():
        return
    progress("Kafka's start cache is made (once)")
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".training-") as name:
        made = Path(name) / "made.aot"
        kafka = KafkaServer(Path(name) / "kafka")
        kafka.start(make_cache=made)
        try:
            kafka.create_topics()
            asyncio.run(_used(kafka.bootstrap))
        finally:
            kafka.stop(_END_S)
        if made.is_file():
            made.replace(cache)
        else:
            progress("Kafka's start cache was not made: it starts without")


async def _used(bootstrap: str) -> None:
    """What the loop asks of a broker: transactions with offsets, and reading what is committed."""
    # That a group's coordinator is not there yet is said once by every first start.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id="training")
    consumer = AIOKafkaConsumer(
        _TOPIC, bootstrap_servers=bootstrap, group_id=_GROUP, enable_auto_commit=False,
        auto_offset_reset="earliest", isolation_level="read_committed",
    )  # fmt: skip
    await producer.start()
    try:
        await consumer.start()
        try:
            for number in range(_ROUNDS):
                async with producer.transaction():
                    await producer.send_and_wait(_TOPIC, b"%d" % number, partition=0)
                    offsets = {TopicPartition(_TOPIC, 0): number + 1}
                    await producer.send_offsets_to_transaction(offsets, _GROUP)
                await consumer.getone()
        finally:
            await consumer.stop()
    finally:
        await producer.stop()
