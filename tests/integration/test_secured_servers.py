"""Kafka and Redis as SECURE=1 starts them: who gets in, and what each may do there. Real servers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis.asyncio as redis
from redis.exceptions import AuthenticationError, NoPermissionError

from local.kafka_acls import denials
from local.kafka_server import KafkaServer
from local.redis_server import RedisServer, redis_tls
from local.security import PASSWORD_NAME, Security
from services.contract import topics
from services.contract.access import IDENTITIES
from services.contract.errors import Forbidden, InvalidInput, Unavailable
from services.runtime import redis_client, start_check
from services.runtime.kafka_consumer import GroupReader, LogReader, TopicPartition
from services.runtime.kafka_producer import Producer, TransactionalProducer
from services.runtime.settings import Connections, KafkaSettings, RedisSettings

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class House:
    """The two servers and everybody's secrets."""

    security: Security
    kafka: KafkaServer
    redis: RedisServer

    def kafka_as(self, identity: str) -> KafkaSettings:
        return self.security.kafka(identity, self.kafka.bootstrap)

    def redis_as(self, identity: str) -> redis.Redis:
        return redis_client.connect(self.security.redis(identity, self.redis.url))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    root = tmp_path_factory.mktemp("secured")
    security = Security(root / "security", redis_tls())
    security.write()
    made = House(
        security,
        KafkaServer(root / "kafka", security=security),
        RedisServer(root / "redis", security=security),
    )
    made.kafka.start()
    made.redis.start()
    try:
        made.kafka.create_topics()
        yield made
    finally:
        made.kafka.kill()
        made.redis.kill()


def writer_of(topic: topics.Topic) -> str:
    return next(name for name in topic.writers if name in IDENTITIES)


async def write(settings: KafkaSettings, topic: str) -> int:
    producer = Producer(settings, "test")
    await producer.start()
    try:
        return (await producer.send(topic, b"v", b"k")).offset
    finally:
        await producer.stop()


@pytest.mark.parametrize("topic", topics.ALL, ids=lambda topic: topic.name)
async def test_an_owner_writes_its_topic(house: House, topic: topics.Topic) -> None:
    assert await write(house.kafka_as(writer_of(topic)), topic.name) >= 0


@pytest.mark.parametrize(
    ("identity", "topic"),
    [
        ("recall", topics.SAMPLES),
        ("release", topics.MODEL_DELTAS),
        ("loadgen", topics.IMPRESSIONS),
        ("trainer", topics.SAMPLES),
        ("operator", topics.MODEL_DELTAS),
    ],
    ids=lambda one: getattr(one, "name", one),
)
async def test_a_foreign_topic_is_denied_and_the_broker_says_so(
    house: House, identity: str, topic: topics.Topic
) -> None:
    with pytest.raises(Forbidden, match=r"may not"):
        await write(house.kafka_as(identity), topic.name)
    denied = denials(house.kafka.log)
    assert any((who, name) == (identity, topic.name) for who, _, _, name in denied)


async def test_who_writes_nothing_may_not_even_begin_to(house: House) -> None:
    with pytest.raises(Forbidden):
        await write(house.kafka_as("gateway"), topics.MODEL_RELEASES.name)


async def test_a_reader_reads_and_others_do_not(house: House) -> None:
    await write(house.kafka_as("joiner"), topics.SAMPLES.name)

    async def read(identity: str) -> int:
        reader = LogReader(house.kafka_as(identity), "test")
        await reader.start()
        try:
            partitions = await reader.partitions(topics.SAMPLES.name)
            reader.assign(await reader.beginning_offsets(partitions))
            return sum(len(found) for found in (await reader.poll(3_000)).values())
        finally:
            await reader.stop()

    assert await read("trainer") >= 1
    assert await read("operator") >= 1
    with pytest.raises(Forbidden, match="may not partitions of samples"):
        await read("gateway")


async def test_a_transactional_id_and_a_group_belong_to_their_owner(house: House) -> None:
    own = TransactionalProducer(house.kafka_as("joiner"), "joiner-0")
    await own.start()
    await own.begin()
    own.send_nowait(topics.SAMPLES.name, b"v", b"k")
    await own.send_offsets({TopicPartition(topics.IMPRESSIONS.name, 0): 1}, "joiner")
    await own.commit()
    await own.stop()
    foreign = TransactionalProducer(
        house.kafka_as("trainer").model_copy(update={"connect_timeout_ms": 3_000}), "joiner-0"
    )
    with pytest.raises(Forbidden, match=r"(?i)transactional"):
        await foreign.start()

    async def nothing(_partitions: set[TopicPartition]) -> None:
        return None

    reader = GroupReader(
        house.kafka_as("joiner"), "test", "joiner-lookup", [topics.IMPRESSIONS.name],
        on_assigned=nothing, on_revoked=nothing,
    )  # fmt: skip
    await reader.start()
    await reader.poll(2_000)
    await reader.commit({TopicPartition(topics.IMPRESSIONS.name, 0): 1})
    await reader.stop()


async def test_without_a_login_nobody_gets_in(house: House) -> None:
    plain = KafkaSettings(bootstrap_servers=house.kafka.bootstrap, connect_timeout_ms=1_500)
    with pytest.raises(Unavailable):
        await Producer(plain, "test").start()


async def test_a_login_that_kafka_refuses_is_named(house: House, tmp_path: Path) -> None:
    wrong = tmp_path / PASSWORD_NAME
    wrong.write_text("not-the-password-of-recall")
    kafka = house.kafka_as("recall").model_copy(update={"password_file": str(wrong)})
    with pytest.raises(InvalidInput, match=f"kafka.username=recall: .*{house.kafka.bootstrap}") as caught:
        await start_check.check(Connections(kafka=kafka))
    assert "not-the-password" not in str(caught.value)
    await start_check.check(Connections(kafka=house.kafka_as("recall")))
    stranger = Security(tmp_path / "other", False)
    stranger.write()
    kafka = house.kafka_as("recall").model_copy(update={"ca_file": stranger.kafka("recall", "").ca_file})
    with pytest.raises(InvalidInput, match="CERTIFICATE_VERIFY_FAILED"):
        await start_check.check(Connections(kafka=kafka))


def test_a_process_that_is_refused_ends_with_one_line_before_it_serves(house: House, tmp_path: Path) -> None:
    wrong = tmp_path / PASSWORD_NAME
    wrong.write_text("half")
    environment = house.security.environment("gateway", house.kafka.bootstrap, house.redis.url)
    for file, said in ((str(wrong), "one line of at least 16"), (str(tmp_path / "none"), "can be read")):
        done = subprocess.run(
            [sys.executable, "-m", "services.gateway", "--grpc.port", "0"],
            env={**os.environ, **environment, "RECLOOP_KAFKA__PASSWORD_FILE": file},
            cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        lines = [line for line in done.stderr.splitlines() if line]
        assert len(lines) == 1
        assert lines[0].startswith(f"gateway: kafka.password_file={file}")
        assert said in lines[0]


async def test_redis_lets_each_do_what_its_rules_say(house: House) -> None:
    async with house.redis_as("feature_pipeline") as client:
        await client.set("f:user_activity.1:x", b"v")
        await client.zincrby("r:pop:1", 1, b"item")
        assert (await client.info("memory"))["used_memory"] > 0
        with pytest.raises(NoPermissionError):
            await client.flushall()
    async with house.redis_as("recall") as client:
        assert await client.get("f:user_activity.1:x") == b"v"
        with pytest.raises(NoPermissionError):
            await client.set("f:user_activity.1:x", b"forged")
        with pytest.raises(NoPermissionError):
            await client.get("p:mark:0")
    ca_file = house.security.redis("recall", house.redis.url).ca_file
    async with redis_client.connect(RedisSettings(url=house.redis.url, ca_file=ca_file)) as client:
        with pytest.raises(AuthenticationError):
            await client.get("f:user_activity.1:x")


async def test_the_feature_server_reads_and_tracks_as_its_user(house: House) -> None:
    from services.runtime.redis_reader import RedisReader, Tracking
    from services.runtime.resp import mget

    told: list[object] = []
    tracking = Tracking((b"f:",), written=told.append, forget=lambda: None)
    reader = RedisReader(house.security.redis("feature", house.redis.url), 10, tracking)
    async with house.redis_as("feature_pipeline") as client:
        await client.set("f:a", b"1")
        assert await reader.ask(mget([(b"f:", b"a", 1)])) == [b"1"]
        assert reader.tracked
        told.clear()
        await client.set("f:a", b"2")
        assert await reader.ask(mget([(b"f:", b"a", 1)])) == [b"2"]
    assert told
    await reader.close()


def test_what_is_secret_is_for_its_owner_only(house: House) -> None:
    files = [path for path in house.security.folder.rglob("*") if path.is_file()]
    assert len(files) > 4 * len(IDENTITIES)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    folders = [house.security.folder, *(path for path in house.security.folder.iterdir() if path.is_dir())]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
    assert (house.kafka.folder / "server.properties").stat().st_mode & 0o777 == 0o600
    password = house.security.password("kafka")
    assert password not in house.kafka.log.read_text()
