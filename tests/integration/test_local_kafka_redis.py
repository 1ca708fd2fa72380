"""The broker and the Redis that the launcher starts, as real processes."""

from __future__ import annotations

import socket

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from local.kafka_config import HEAP_MB
from local.ports import is_free
from services.contract import topics

pytestmark = pytest.mark.integration


async def test_every_topic_exists_with_its_partitions_and_settings(kafka_bootstrap):
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    try:
        found = {one["topic"]: one for one in await admin.describe_topics([t.name for t in topics.ALL])}
    finally:
        await admin.close()
    assert {name: len(one["partitions"]) for name, one in found.items()} == {
        topic.name: topic.partitions for topic in topics.ALL
    }


async def test_a_record_of_the_largest_size_passes(kafka_bootstrap):
    value = b"x" * (topics.MAX_RECORD_BYTES - 1024)
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, max_request_size=topics.MAX_RECORD_BYTES)
    await producer.start()
    try:
        sent = await producer.send_and_wait(topics.DEAD_LETTERS.name, value)
    finally:
        await producer.stop()
    assert sent.offset >= 0


async def test_acknowledged_records_survive_kill_and_restart_on_the_same_port(private_kafka):
    producer = AIOKafkaProducer(bootstrap_servers=private_kafka.bootstrap, acks="all")
    await producer.start()
    await producer.send_and_wait(topics.CATALOG.name, b"kept", key=b"k")
    await producer.stop()
    private_kafka.kill()
    assert is_free(private_kafka.port)
    private_kafka.start()
    consumer = AIOKafkaConsumer(
        topics.CATALOG.name, bootstrap_servers=private_kafka.bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        assert (await consumer.getone()).value == b"kept"
    finally:
        await consumer.stop()


def test_stop_leaves_no_process_and_no_port(private_kafka, private_redis):
    pids = [private_kafka.child.pid, private_redis.child.pid]
    assert private_kafka.stop() and private_redis.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert (
        is_free(private_kafka.port) and is_free(private_kafka.controller_port) and is_free(private_redis.port)
    )


def test_both_listen_on_loopback_only(kafka_server, redis_server):
    for server in (kafka_server, redis_server):
        listening = psutil.Process(server.child.pid).net_connections(kind="tcp")
        addresses = {one.laddr.ip for one in listening if one.status == psutil.CONN_LISTEN}
        assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}, addresses


def test_the_broker_stays_near_its_heap(kafka_server):
    assert kafka_server.child.sample_memory() < (HEAP_MB + 256) * 1024 * 1024


def test_redis_answers(redis_url):
    import redis

    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()
        assert client.config_get("appendonly") == {"appendonly": "no"}


def test_a_busy_port_fails_the_start_with_the_log(tmp_path):
    from local.errors import StartFailed
    from local.redis_server import RedisServer

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = RedisServer(tmp_path, taken.getsockname()[1])
        with pytest.raises(StartFailed, match="in use"):
            server.start()
    assert server.child is not None and server.child.exit_code is not None
