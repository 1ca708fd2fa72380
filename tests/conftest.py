"""Fixtures with the real things: Kafka, Redis, free ports, the MovieLens folder.

Kafka and Redis are started once per session (about 3 s) the first time a test asks. A test that needs
topics of its own, or that stops the broker, takes ``private_kafka`` / ``private_redis``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """The session's broker, all topics created. Shared: never stop it; use private_kafka for that."""
    from local.kafka_server import KafkaServer

    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    server.start()
    try:
        server.create_topics()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def kafka_bootstrap(kafka_server) -> str:
    """host:port of the session's broker."""
    return kafka_server.bootstrap


@pytest.fixture
def private_kafka(tmp_path: Path) -> Iterator:
    """A broker for one test alone, with empty topics; start(), stop() and kill() as the test likes."""
    from local.kafka_server import KafkaServer

    server = KafkaServer(tmp_path / "kafka")
    server.start()
    try:
        server.create_topics()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """The session's Redis. Shared: never stop it; use private_redis for that."""
    from local.redis_server import RedisServer

    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_url(redis_server) -> str:
    """URL of the session's Redis, emptied for this test."""
    import redis

    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def private_redis(tmp_path: Path) -> Iterator:
    """A Redis for one test alone; start(), stop() and kill() as the test likes."""
    from local.redis_server import RedisServer

    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def free_ports() -> Callable[[int], list[int]]:
    """Ports nobody listens on now: ``free_ports(2) -> [20123, 27001]``."""
    from local.ports import free_ports as find

    return find


@pytest.fixture(scope="session")
def ml100k() -> Path:
    """The MovieLens 100K folder: RECLOOP_ML100K, else the shared data folder beside the repository."""
    folder = Path(os.environ.get("RECLOOP_ML100K") or REPOSITORY.parent / "shared" / "data" / "ml-100k")
    if not (folder / "u.data").is_file():
        pytest.skip(f"no MovieLens 100K at {folder}: set RECLOOP_ML100K to its folder")
    return folder
