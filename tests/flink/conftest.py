"""What the tests of the Flink join need: its jar, Kafka, what to send and what to read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from flink_kit import Committed, Job
from oracles.join_traffic import TOPIC, Placed

from local import flink_jar
from local.flink_config import OUTPUTS
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.kafka_producer import Producer
from services.runtime.settings import KafkaSettings


@pytest.fixture(scope="session")
def join_jar() -> Path:
    """The jar with everything in it: the job, the join alone, Flink."""
    return flink_jar.jar()


@pytest.fixture
def kafka(private_kafka) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=private_kafka.bootstrap)


@pytest.fixture
def job(join_jar: Path, private_kafka, tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Starts jobs that share one folder of checkpoints; kills what is left of them."""
    started: list[Job] = []

    def start(*options: str) -> Job:
        name = f"job-{len(started)}"
        started.append(Job(join_jar, private_kafka.bootstrap, tmp_path, name, *options))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
async def send(kafka: KafkaSettings) -> AsyncIterator:
    """Sends placed records in order and waits for the acknowledgements."""
    producer = Producer(kafka, "test")
    await producer.start()

    async def send_all(placed: list[Placed], hurry: asyncio.Event | None = None, every: int = 50) -> None:
        for at in range(0, len(placed), every):
            await asyncio.gather(
                *(
                    producer.send_nowait(TOPIC[source], raw, key=key, partition=partition)
                    for source, partition, key, raw in placed[at : at + every]
                )
            )
            if hurry is not None and not hurry.is_set():
                await asyncio.sleep(0.4)

    yield send_all
    await producer.stop()


@pytest.fixture
async def committed(kafka: KafkaSettings) -> AsyncIterator:
    """Begins to read the output topics, which must exist."""
    readers: list[LogReader] = []

    async def begin() -> Committed:
        reader = LogReader(kafka, "check")
        readers.append(reader)
        await reader.start()
        reader.assign({TopicPartition(t.name, p): 0 for t in OUTPUTS for p in range(t.partitions)})
        return Committed(reader)

    yield begin
    for reader in readers:
        await reader.stop()
