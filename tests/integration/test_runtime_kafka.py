"""Producers, transactions and readers against a real broker."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from services.contract import topics
from services.contract.errors import Conflict, InvalidInput, NotFound, Overloaded, Unavailable
from services.contract.topics import MAX_RECORD_BYTES, partition_of
from services.runtime.kafka_consumer import GroupReader, LogReader, TopicPartition
from services.runtime.kafka_producer import Producer, TransactionalProducer
from services.runtime.settings import KafkaSettings

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(kafka_bootstrap: str) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka_bootstrap)


async def make_topic(bootstrap: str, partitions: int = 2) -> str:
    name = f"t-{uuid.uuid4().hex[:12]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        config = {"max.message.bytes": str(MAX_RECORD_BYTES)}
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])
    finally:
        await admin.close()
    return name


@pytest.fixture
async def topic(kafka_bootstrap: str) -> str:
    return await make_topic(kafka_bootstrap)


@pytest.fixture
async def producer(settings: KafkaSettings) -> AsyncIterator[Producer]:
    made = Producer(settings, "p")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def reader(settings: KafkaSettings) -> AsyncIterator[LogReader]:
    made = LogReader(settings, "r")
    await made.start()
    yield made
    await made.stop()


async def read(reader: LogReader, topic: str, partition: int = 0, at_least: int = 1) -> list[bytes]:
    """Everything from the start of one partition, once ``at_least`` records are there."""
    where = TopicPartition(topic, partition)
    reader.assign({where: 0})
    values: list[bytes] = []
    async with asyncio.timeout(15):
        while len(values) < at_least:
            values += [record.value for record in (await reader.poll(timeout_ms=200)).get(where, [])]
    return values


async def nothing(_partitions: set[TopicPartition]) -> None:
    pass


@pytest.mark.parametrize(
    "make",
    [
        lambda settings: Producer(settings, "p"),
        lambda settings: TransactionalProducer(settings, "t"),
        lambda settings: LogReader(settings, "r"),
        lambda settings: GroupReader(settings, "r", "g", ["t"], on_assigned=nothing, on_revoked=nothing),
    ],
    ids=["producer", "transactions", "reader", "group"],
)
async def test_no_client_starts_where_a_topic_has_other_partitions(
    settings: KafkaSettings,
    reader: LogReader,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[KafkaSettings], Any],
) -> None:
    assert len(await reader.partitions(topic)) == 2, "the broker knows it"
    monkeypatch.setattr(topics, "ALL", (replace(topics.SAMPLES, name=topic, partitions=3),))
    with pytest.raises(InvalidInput, match=rf"partitions of topic {topic}=2: 3 \(RECLOOP_EVENT_PARTITIONS"):
        await make(settings).start()
    monkeypatch.setattr(topics, "ALL", (replace(topics.SAMPLES, name=topic, partitions=2),))
    await (client := make(settings)).start()
    await client.stop()


async def test_records_keep_their_order_and_land_where_the_contract_says(
    producer: Producer, reader: LogReader, topic: str
) -> None:
    sent = [producer.send_nowait(topic, b"%d" % i, key=b"k1", headers=[("h", b"v")]) for i in range(500)]
    metadata = await asyncio.gather(*sent)
    partition = partition_of(b"k1", 2)
    assert {one.partition for one in metadata} == {partition}
    assert [one.offset for one in metadata] == list(range(500))
    assert await read(reader, topic, partition, 500) == [b"%d" % i for i in range(500)]
    assert producer.pending == 0
    assert producer.connected


async def test_order_holds_when_batches_fill_up(kafka_bootstrap: str, reader: LogReader, topic: str) -> None:
    producer = Producer(KafkaSettings(bootstrap_servers=kafka_bootstrap, max_batch_bytes=2_000), "small")
    await producer.start()
    sent = [producer.send_nowait(topic, b"%05d" % i + b"x" * 500, partition=0) for i in range(300)]
    await asyncio.gather(*sent)
    await producer.stop()
    values = await read(reader, topic, 0, 300)
    assert [int(value[:5]) for value in values] == list(range(300))


async def test_a_full_queue_refuses_and_recovers(kafka_bootstrap: str, topic: str) -> None:
    producer = Producer(KafkaSettings(bootstrap_servers=kafka_bootstrap, max_pending_records=3), "tight")
    await producer.start()
    sent = [producer.send_nowait(topic, b"x", partition=0) for _ in range(3)]
    with pytest.raises(Overloaded):
        producer.send_nowait(topic, b"x", partition=0)
    await asyncio.gather(*sent)
    assert (await producer.send(topic, b"x", partition=0)).offset == 3
    await producer.stop()


async def test_a_record_of_almost_the_largest_size_passes_and_a_larger_one_is_named(
    producer: Producer, reader: LogReader, topic: str
) -> None:
    big = b"x" * (MAX_RECORD_BYTES - 2_000)
    await producer.send(topic, big, partition=0)
    assert await read(reader, topic) == [big]
    with pytest.raises(InvalidInput, match="8388608"):
        await producer.send(topic, b"x" * MAX_RECORD_BYTES, partition=0)


async def test_a_caller_that_gives_up_does_not_take_its_record_back(
    producer: Producer, reader: LogReader, topic: str
) -> None:
    sent = producer.send_nowait(topic, b"kept", partition=0)
    sent.cancel()
    await producer.flush()
    assert await read(reader, topic) == [b"kept"]


async def test_no_broker_is_unavailable_with_its_address() -> None:
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1", connect_timeout_ms=300)
    for client in (Producer(settings, "p"), LogReader(settings, "r"), TransactionalProducer(settings, "t")):
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
            await client.start()
        await client.stop()


async def test_records_sent_while_the_broker_is_away_arrive_once_when_it_returns(private_kafka) -> None:
    bootstrap = private_kafka.bootstrap
    topic = await make_topic(bootstrap, 1)
    settings = KafkaSettings(bootstrap_servers=bootstrap, stalled_ms=300, request_timeout_ms=3_000)
    producer = Producer(settings, "p")
    await producer.start()
    await producer.send(topic, b"before", partition=0)
    private_kafka.kill()
    sent = [producer.send_nowait(topic, b"%d" % i, partition=0) for i in range(10)]
    done, waiting = await asyncio.wait(sent, timeout=1.0)
    assert not done
    assert producer.stalled
    assert not producer.connected
    await asyncio.to_thread(private_kafka.start)
    async with asyncio.timeout(30):
        await asyncio.gather(*waiting)
    assert producer.connected
    reader = LogReader(settings, "r")
    await reader.start()
    assert await read(reader, topic, 0, 11) == [b"before", *(b"%d" % i for i in range(10))]
    await reader.stop()
    await producer.stop()


async def test_a_commit_does_not_wait_for_records_that_could_still_come(
    settings: KafkaSettings, reader: LogReader, topic: str
) -> None:
    owner = TransactionalProducer(settings.model_copy(update={"linger_ms": 20_000}), f"x-{topic}")
    await owner.start()
    async with asyncio.timeout(10):
        await owner.begin()
        owner.send_nowait(topic, b"alone", partition=0)
        await owner.commit()
    assert await read(reader, topic) == [b"alone"]
    await owner.stop()


async def test_a_commit_shows_records_and_offsets_together_and_an_abort_neither(
    settings: KafkaSettings, reader: LogReader, topic: str
) -> None:
    group = f"g-{topic}"
    where = TopicPartition(topic, 1)
    owner = TransactionalProducer(settings, f"x-{topic}")
    await owner.start()
    assert await owner.committed(group, [where]) == {}
    await owner.begin()
    owner.send_nowait(topic, b"gone", partition=0)
    await owner.send_offsets({where: (3, "no")}, group)
    await owner.abort()
    assert await owner.committed(group, [where]) == {}
    await owner.begin()
    owner.send_nowait(topic, b"kept", partition=0)
    await owner.send_offsets({where: (7, "meta")}, group)
    out = TopicPartition(topic, 0)
    assert (await reader.end_offsets([out]))[
        out
    ] == 2  # the abort and its marker; the open record is not stable
    await owner.commit()
    assert await read(reader, topic) == [b"kept"]
    assert await owner.committed(group, [where]) == {where: (7, "meta")}
    end = (await reader.end_offsets([out]))[out]
    for _ in range(20):
        await reader.poll(timeout_ms=50)
        if await reader.position(out) == end:
            break
    assert await reader.position(out) == end, "the position passes the commit marker"
    await owner.stop()


async def test_a_new_owner_fences_the_old_one_and_its_open_transaction_is_gone(
    settings: KafkaSettings, reader: LogReader, topic: str
) -> None:
    zombie = TransactionalProducer(settings, f"x-{topic}")
    await zombie.start()
    await zombie.begin()
    await zombie.send_nowait(topic, b"zombie", partition=0)
    owner = TransactionalProducer(settings, f"x-{topic}")
    await owner.start()
    assert owner.epoch[0] == zombie.epoch[0]
    assert owner.epoch[1] > zombie.epoch[1]
    await owner.begin()
    owner.send_nowait(topic, b"owner", partition=0)
    await owner.commit()
    zombie.send_nowait(topic, b"late zombie", partition=0)
    with pytest.raises(Conflict):
        await zombie.commit()
    with pytest.raises((Conflict, Unavailable)):
        await zombie.begin()
    await zombie.stop()
    assert await read(reader, topic) == [b"owner"]
    await owner.stop()


async def test_a_transaction_of_many_records_commits_in_order(
    settings: KafkaSettings, reader: LogReader, topic: str
) -> None:
    owner = TransactionalProducer(settings, f"x-{topic}")
    await owner.start()
    for round_ in range(3):
        await owner.begin()
        for i in range(1000):
            owner.send_nowait(topic, b"%d" % (round_ * 1000 + i), partition=0)
        await owner.commit()
    assert await read(reader, topic, 0, 3000) == [b"%d" % i for i in range(3000)]
    await owner.stop()


@dataclass
class Sent:
    topic: str
    value: bytes
    partition: int
    key: bytes | None = None
    headers: list[tuple[str, bytes]] | None = None


async def test_records_sent_as_whole_batches_keep_their_order_over_many_batches(
    settings: KafkaSettings, reader: LogReader, topic: str
) -> None:
    owner = TransactionalProducer(settings.model_copy(update={"max_batch_bytes": 4096}), f"x-{topic}")
    await owner.start()
    await owner.begin()
    await owner.send_all([Sent(topic, b"%04d" % i * 50, i % 2) for i in range(400)])
    # One larger than a batch is a batch of its own.
    large = Sent(topic, b"L" * 20_000, 0, b"key", [("name", b"value")])
    await owner.send_all([large])
    owner.send_nowait(topic, b"last", partition=0)
    await owner.commit()
    even = [b"%04d" % i * 50 for i in range(0, 400, 2)]
    assert await read(reader, topic, 0, 202) == [*even, large.value, b"last"]
    assert await read(reader, topic, 1, 200) == [b"%04d" % i * 50 for i in range(1, 400, 2)]
    await owner.stop()


async def test_a_batch_with_a_record_too_large_is_refused_whole(
    settings: KafkaSettings, reader: LogReader, topic: str
) -> None:
    owner = TransactionalProducer(settings, f"x-{topic}")
    await owner.start()
    await owner.begin()
    with pytest.raises(InvalidInput, match="at most"):
        await owner.send_all([Sent(topic, b"fine", 0), Sent(topic, bytes(MAX_RECORD_BYTES + 1), 0)])
    await owner.abort()
    await owner.begin()
    await owner.send_all([Sent(topic, b"after", 0)])
    await owner.commit()
    assert await read(reader, topic) == [b"after"]
    await owner.stop()


async def test_batches_of_a_dead_owner_are_never_seen(
    settings: KafkaSettings, reader: LogReader, topic: str
) -> None:
    dead = TransactionalProducer(settings, f"x-{topic}")
    await dead.start()
    await dead.begin()
    await dead.send_all([Sent(topic, b"dead", 0)])
    owner = TransactionalProducer(settings, f"x-{topic}")
    await owner.start()
    with pytest.raises((Conflict, Unavailable)):
        await dead.commit()
    await owner.begin()
    await owner.send_all([Sent(topic, b"owner", 0)])
    await owner.commit()
    assert await read(reader, topic) == [b"owner"]
    await asyncio.gather(dead.stop(), owner.stop())


async def test_an_empty_transaction_commits(settings: KafkaSettings, topic: str) -> None:
    owner = TransactionalProducer(settings, f"x-{topic}")
    await owner.start()
    await owner.begin()
    await owner.commit()
    await owner.stop()


async def test_a_position_outside_the_log_is_not_found(
    reader: LogReader, producer: Producer, topic: str
) -> None:
    await producer.send(topic, b"x", partition=0)
    reader.assign({TopicPartition(topic, 0): 99})
    with pytest.raises(NotFound):
        async with asyncio.timeout(10):
            while True:
                await reader.poll(timeout_ms=100)


async def test_a_reader_seeks_back_and_knows_its_partitions(
    reader: LogReader, producer: Producer, topic: str
) -> None:
    await asyncio.gather(*(producer.send_nowait(topic, b"%d" % i, partition=0) for i in range(5)))
    assert await reader.partitions(topic) == [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    where = TopicPartition(topic, 0)
    await read(reader, topic, 0, 5)
    assert await reader.position(where) == 5
    reader.seek(where, 3)
    assert [record.offset for record in (await reader.poll(timeout_ms=2000))[where]] == [3, 4]
    assert await reader.beginning_offsets([where]) == {where: 0}
    assert await reader.end_offsets([where]) == {where: 5}


async def test_two_members_share_partitions_and_one_that_leaves_hands_over(
    settings: KafkaSettings, producer: Producer, topic: str
) -> None:
    owned: dict[str, set[TopicPartition]] = {"a": set(), "b": set()}

    def member(name: str) -> GroupReader:
        async def assigned(new: set[TopicPartition]) -> None:
            owned[name] = new

        async def revoked(_old: set[TopicPartition]) -> None:
            owned[name] = set()

        return GroupReader(settings, name, f"g-{topic}", [topic], on_assigned=assigned, on_revoked=revoked)

    async def until(holds: Callable[[], bool], *members: GroupReader) -> None:
        async with asyncio.timeout(30):
            while not holds():
                await asyncio.gather(*(one.poll(timeout_ms=100) for one in members))

    first, second = member("a"), member("b")
    await first.start()
    await until(lambda: len(owned["a"]) == 2, first)
    await first.commit({TopicPartition(topic, 0): (0, "m")})
    await second.start()
    await until(lambda: len(owned["a"]) == 1 and len(owned["b"]) == 1, first, second)
    assert owned["a"] | owned["b"] == {TopicPartition(topic, 0), TopicPartition(topic, 1)}
    await first.stop()
    await until(lambda: len(owned["b"]) == 2, second)
    assert await second.committed(TopicPartition(topic, 0)) == 0
    await second.stop()


async def test_a_producer_stops_within_its_timeout_while_the_broker_is_away(private_kafka) -> None:
    topic = await make_topic(private_kafka.bootstrap, 1)
    settings = KafkaSettings(bootstrap_servers=private_kafka.bootstrap, request_timeout_ms=1_000)
    producer, owner = Producer(settings, "p"), TransactionalProducer(settings, f"x-{topic}")
    await producer.start()
    await owner.start()
    await producer.send(topic, b"x", partition=0)
    await owner.begin()
    await owner.send_nowait(topic, b"x", partition=0)
    private_kafka.kill()
    sent = producer.send_nowait(topic, b"y", partition=0)
    owner.send_nowait(topic, b"y", partition=0)
    await asyncio.sleep(0.2)
    async with asyncio.timeout(8):
        await producer.stop()
        await owner.stop()
    with pytest.raises(Unavailable):
        await sent


async def test_a_producer_whose_broker_lost_its_log_is_rebuilt(private_kafka) -> None:
    settings = KafkaSettings(bootstrap_servers=private_kafka.bootstrap, request_timeout_ms=2_000)
    producer = Producer(settings, "p")
    await producer.start()
    for _ in range(3):
        await producer.send("actions", b"x", partition=0)
    private_kafka.kill()
    shutil.rmtree(private_kafka.folder / "data")
    await asyncio.to_thread(private_kafka.start)
    await asyncio.to_thread(private_kafka.create_topics)
    async with asyncio.timeout(30):
        while True:
            try:
                metadata = await producer.send("actions", b"after", partition=0)
                break
            except Unavailable:
                await asyncio.sleep(0.1)
    reader = LogReader(settings, "r")
    await reader.start()
    assert (await read(reader, "actions", 0, 1))[-1] == b"after"
    assert metadata.offset >= 0
    await reader.stop()
    await producer.stop()
