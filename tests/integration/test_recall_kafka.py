"""Recall as a whole on real Kafka and Redis: catalogue, base, deltas, repairs, a new generation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rec.events.v1.events_pb2 import Item
from rec.model.v1.model_pb2 import BaseRef, Lineage, Release
from rec.v1 import recall_pb2_grpc
from rec.v1.recall_pb2 import GetRecallStatusRequest, RetrieveRequest, RetrieveResponse
from services.contract import delta, model_schema, model_store, times, topics
from services.contract.model_state import ModelState
from services.recall.__main__ import start
from services.recall.settings import RecallSettings
from services.recall.sources import Source
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.kafka_producer import Producer
from services.runtime.process import Process
from services.runtime.settings import GrpcServerSettings, KafkaSettings, RedisSettings
from tests.feature_kit import SHAPE

pytestmark = pytest.mark.integration

NOW_US = 1_700_000_000_000_000


def change(ids: list[int], bias: float, expired: list[int] | None = None) -> delta.TableChange:
    """Rows of items that have nothing but a bias."""
    rows = np.zeros((len(ids), model_schema.ROW_WIDTH), np.float32)
    rows[:, model_schema.RECALL_BIAS.start] = bias
    return delta.TableChange(
        "item",
        np.array(ids, np.uint64),
        rows,
        np.zeros((len(ids), model_schema.OPTIMIZER_WIDTH), np.float32),
        np.ones(len(ids), np.uint32),
        np.full(len(ids), NOW_US, np.int64),
        expired_ids=np.array(expired or [], np.uint64),
    )


class Writer:
    """Plays collector, release and the trainer of one generation."""

    def __init__(self, producer: Producer, store: Path, generation: int = 1) -> None:
        self._producer = producer
        self._store = str(store)
        self.state = ModelState(SHAPE, generation=generation)
        self.partition = topics.partition_of(
            topics.lineage_key(generation, "online"), topics.MODEL_DELTAS.partitions
        )
        self.epoch = 1
        self.next_offset = 0
        self.revision = 0

    async def items(self, *item_ids: int, created_us: int = NOW_US) -> None:
        created = times.from_us(created_us)
        records = [Item(item_id=one, item_key=str(one), created_at=created) for one in item_ids]
        sent = [
            self._producer.send("catalog", one.SerializeToString(), key=topics.entity_key(one.item_id))
            for one in records
        ]
        await asyncio.gather(*sent)

    async def base(self, *item_ids: int, bias: float = 1.0) -> None:
        """Saves the state (with these items added) and releases it."""
        if item_ids:
            self.state.tables["item"].apply(change(list(item_ids), bias))
        saved = model_store.save_base(
            self._store,
            self.state,
            created_at_us=NOW_US,
            delta_partition=self.partition,
            delta_offset=self.next_offset,
        )
        if self.state.sequence == 0:
            self.state.chain_hash = saved.manifest_digest
        self.revision += 1
        release = Release(
            arm="online",
            lineage=Lineage(generation=self.state.generation, policy="online"),
            base=BaseRef(
                manifest_uri=saved.manifest_uri,
                manifest_digest=saved.manifest_digest,
                sequence=self.state.sequence,
                chain_hash=self.state.chain_hash,
                epoch=self.state.epoch,
                delta_partition=self.partition,
                delta_offset=self.next_offset,
            ),
            revision=self.revision + 100 * self.state.generation,
        )
        await self._producer.send("model-releases", release.SerializeToString(), key=b"online", partition=0)

    def seal(self, *changes: delta.TableChange, epoch: int | None = None) -> bytes:
        """The next delta of the chain, and moves the chain there."""
        header = delta.Header(
            generation=self.state.generation,
            policy="online",
            sequence=self.state.sequence + 1,
            epoch=epoch or self.epoch,
            previous_hash=self.state.chain_hash,
            created_at_us=NOW_US,
            model_hash=SHAPE.model_hash,
        )
        value, digest = delta.seal(header, delta.Body(changes))
        self.state.sequence, self.state.epoch, self.state.chain_hash = header.sequence, header.epoch, digest
        for each in changes:
            self.state.tables["item"].apply(each)
        return value

    async def log(self, value: bytes) -> None:
        sent = await self._producer.send("model-deltas", value, partition=self.partition)
        self.next_offset = sent.offset + 1


class House:
    """A running recall and its neighbours."""

    writer: Writer
    producer: Producer
    kafka: KafkaSettings
    stub: recall_pb2_grpc.RecallServiceStub
    health: health_pb2_grpc.HealthStub

    async def until(self, holds: Callable[[], Any], timeout_s: float = 8.0) -> None:
        """Asks until an awaited condition holds."""
        async with asyncio.timeout(timeout_s):
            while True:
                if await holds():
                    return
                await asyncio.sleep(0.02)

    async def serving(self) -> bool:
        answer = await self.health.Check(health_pb2.HealthCheckRequest())
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    async def at(self, generation: int, sequence: int) -> bool:
        model = (await self.stub.GetRecallStatus(GetRecallStatusRequest())).model
        return (model.lineage.generation, model.sequence) == (generation, sequence)

    async def ask(self, n: int = 20) -> RetrieveResponse:
        return await self.stub.Retrieve(RetrieveRequest(request_id="r", user_id=1, n=n), timeout=2)

    async def vectors(self, n: int = 20) -> list[int]:
        """Items that the vectors proposed, best first."""
        response = await self.ask(n)
        ids = np.frombuffer(response.item_ids, "<u8").tolist()
        return [item for item, tag in zip(ids, response.sources, strict=True) if tag & Source.VECTOR.bit]


@pytest.fixture
async def house(private_kafka, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """Recall with an empty catalogue and no release."""
    async with AsyncExitStack() as stack:
        house = House()
        house.kafka = KafkaSettings(bootstrap_servers=private_kafka.bootstrap)
        house.producer = Producer(house.kafka, "test")
        await house.producer.start()
        stack.push_async_callback(house.producer.stop)
        house.writer = Writer(house.producer, tmp_path / "store")
        settings = RecallSettings(
            grpc=GrpcServerSettings(port=0),
            kafka=house.kafka,
            redis=RedisSettings(url=redis_url),
            model_store_uri=str(tmp_path / "store"),
            vectors_wait_ms=3_000,
            vectors_stale_ms=100,
            popular_refresh_ms=100,
        )
        process = Process(settings)
        stack.push_async_callback(process.close)
        server = await start(settings, process)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        stack.push_async_callback(channel.close)
        house.stub = recall_pb2_grpc.RecallServiceStub(channel)
        house.health = health_pb2_grpc.HealthStub(channel)
        yield house
        assert process.failure is None


async def loaded(house: House) -> Writer:
    """Catalogue 1..50, generation 1 with vectors of 1..10."""
    await house.writer.items(*range(1, 51))
    await house.writer.base(*range(1, 11))
    await house.until(house.serving)
    return house.writer


async def test_it_serves_when_catalogue_and_vectors_are_loaded_and_follows_deltas(house: House) -> None:
    assert not await house.serving()
    writer = await loaded(house)
    assert await house.vectors() == list(range(1, 11))
    assert not (await house.ask()).degraded
    await writer.log(writer.seal(change([30], 5.0)))
    await house.until(lambda: house.at(1, 1))
    assert (await house.vectors())[0] == 30
    await writer.log(writer.seal(change([31], 6.0, expired=[1, 30])))
    await house.until(lambda: house.at(1, 2))
    assert await house.vectors() == [31, *range(2, 11)]


async def test_a_new_item_of_the_catalogue_is_fresh_within_a_second(house: House) -> None:
    writer = await loaded(house)
    await writer.items(999, created_us=NOW_US + 1)

    async def is_first_of_the_fresh() -> bool:
        response = await house.ask()
        ids = np.frombuffer(response.item_ids, "<u8").tolist()
        return 999 in ids and bool(response.sources[ids.index(999)] & Source.FRESH.bit)

    await house.until(is_first_of_the_fresh, timeout_s=1.0)


async def test_a_malformed_catalogue_record_is_a_dead_letter_and_the_next_one_is_read(house: House) -> None:
    writer = await loaded(house)
    await house.producer.send("catalog", b"\xff\xff", key=b"k")
    wrong_key = Item(item_id=7_000).SerializeToString()
    await house.producer.send("catalog", wrong_key, key=topics.entity_key(1))
    await writer.items(8_000)

    async def has_it() -> bool:
        return (await house.stub.GetRecallStatus(GetRecallStatusRequest())).catalogue_items == 51

    await house.until(has_it)
    reader = LogReader(house.kafka, "test-dead-letters")
    await reader.start()
    try:
        where = TopicPartition("dead-letters", 0)
        reader.assign({where: 0})
        letters: list[Any] = []
        async with asyncio.timeout(5):
            while len(letters) < 2:
                letters += (await reader.poll(100)).get(where, [])
    finally:
        await reader.stop()
    assert [letter.value for letter in letters] == [b"\xff\xff", wrong_key]
    headers = dict(letters[1].headers)
    assert headers["origin-topic"] == b"catalog"
    assert headers["origin-offset"] == b"51"
    assert b"8 bytes little-endian" in headers["reason"]


async def test_repeated_forged_and_zombie_deltas_change_nothing(house: House) -> None:
    writer = await loaded(house)
    writer.epoch = 2
    first = writer.seal(change([30], 5.0))
    await writer.log(first)
    await writer.log(first)
    forged = bytearray(first)
    forged[-40] ^= 1
    await writer.log(bytes(forged))
    zombie = Writer(house.producer, Path())
    zombie.state.sequence, zombie.state.chain_hash = 1, writer.state.chain_hash
    await writer.log(zombie.seal(change([40], 9.0)))
    await writer.log(writer.seal(change([31], 6.0)))
    await house.until(lambda: house.at(1, 2))
    assert await house.vectors() == [31, 30, *range(1, 11)]


async def test_a_lost_delta_is_repaired_from_a_newer_base_and_named_until_then(house: House) -> None:
    writer = await loaded(house)
    await writer.log(writer.seal(change([30], 5.0)))
    writer.seal(change([31], 6.0))  # lost on the way
    await writer.log(writer.seal(change([32], 7.0)))

    async def is_stale() -> bool:
        degraded = [(part.source, part.reason) for part in (await house.ask()).degraded]
        return degraded == [("recall.vector", "stale")]

    await house.until(is_stale)
    assert await house.at(1, 1)
    assert (await house.vectors())[0] == 30
    await writer.base()
    await house.until(lambda: house.at(1, 3))
    assert (await house.vectors())[:3] == [32, 31, 30]
    await writer.log(writer.seal(change([33], 8.0)))
    await house.until(lambda: house.at(1, 4))
    assert not (await house.ask()).degraded


async def test_a_new_generation_is_caught_up_aside_and_swapped_in(house: House) -> None:
    writer = await loaded(house)
    following = Writer(house.producer, Path(writer._store), generation=2)
    await writer.log(writer.seal(change([30], 5.0)))
    await house.until(lambda: house.at(1, 1))
    await following.base(41, 42)
    await house.until(lambda: house.at(2, 0))
    assert await house.vectors() == [41, 42]


async def test_a_base_that_cannot_be_read_leaves_the_old_lineage_followed(house: House) -> None:
    writer = await loaded(house)
    second = Writer(house.producer, Path(writer._store), generation=2)
    await second.base(41)
    await house.until(lambda: house.at(2, 0))
    lost = Release(
        arm="online",
        lineage=Lineage(generation=3, policy="online"),
        base=BaseRef(manifest_uri="nowhere/manifest.json"),
        revision=900,
    )
    await house.producer.send("model-releases", lost.SerializeToString(), key=b"online", partition=0)
    await asyncio.sleep(0.5)
    await second.log(second.seal(change([42], 5.0)))
    await house.until(lambda: house.at(2, 1))
    assert await house.vectors() == [42, 41]
    assert await house.serving()


async def test_without_any_release_it_serves_after_a_while_and_says_what_is_missing(house: House) -> None:
    await house.writer.items(*range(1, 51))
    await house.until(house.serving)
    response = await house.ask()
    assert [(part.source, part.reason) for part in response.degraded] == [("recall.vector", "unavailable")]
    assert len(response.item_ids) == 20 * 8
    await house.writer.base(*range(1, 11))
    await house.until(lambda: house.at(1, 0))
