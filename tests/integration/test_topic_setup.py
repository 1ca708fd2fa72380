"""``python -m local.topic_setup`` against a real broker."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from local.kafka_server import KafkaServer
from services.contract import topics

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def bootstrap(tmp_path: Path) -> Iterator[str]:
    """A broker without topics."""
    server = KafkaServer(tmp_path / "kafka")
    server.start()
    try:
        yield server.bootstrap
    finally:
        server.kill()


def set_up(bootstrap: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": bootstrap}
    command = [sys.executable, "-m", "local.topic_setup"]
    return subprocess.run(
        command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=90, check=False
    )


async def described(bootstrap: str) -> dict[str, list[dict]]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        found = await admin.describe_topics([topic.name for topic in topics.ALL])
        return {one["topic"]: one["partitions"] for one in found}
    finally:
        await admin.close()


async def create(bootstrap: str, name: str, partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1)])
    finally:
        await admin.close()


def test_topics_are_created_where_they_are_missing(bootstrap):
    asyncio.run(create(bootstrap, topics.MODEL_DELTAS.name, topics.MODEL_DELTAS.partitions))
    for _ in range(2):
        done = set_up(bootstrap)
        assert done.returncode == 0, done.stderr
        found = asyncio.run(described(bootstrap))
        assert {name: len(parts) for name, parts in found.items()} == {
            topic.name: topic.partitions for topic in topics.ALL
        }
        # One broker, so one copy.
        assert {len(part["replicas"]) for parts in found.values() for part in parts} == {1}


def test_a_topic_with_other_partitions_than_the_code_wants_is_refused_by_name(bootstrap):
    asyncio.run(create(bootstrap, topics.SAMPLES.name, 2))
    done = set_up(bootstrap)
    assert done.returncode == 1
    assert "topic samples has 2 partitions, 4 are wanted" in done.stderr
