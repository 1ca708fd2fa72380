"""Ranking with a real Kafka: committed deltas of a trainer-like writer, a kill and a restart."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ranking_kit import PARTITION, Chain, rank_request

from rec.events.v1 import events_pb2
from rec.v1 import ranking_pb2, ranking_pb2_grpc
from services.contract import times, topics
from services.ranking.__main__ import serve
from services.ranking.settings import Settings
from services.runtime.grpc_client import channel
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.kafka_producer import Producer, TransactionalProducer
from services.runtime.process import Process
from services.runtime.settings import GrpcServerSettings, KafkaSettings

pytestmark = pytest.mark.integration
STATUS = ranking_pb2.GetModelStatusRequest()


class Writer:
    """Writes deltas and releases as the trainer and release do."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.deltas = TransactionalProducer(kafka, "trainer-1-online")
        self.releases = Producer(kafka, "test-release")

    async def __aenter__(self) -> Writer:
        await self.deltas.start()
        await self.releases.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.deltas.stop()
        await self.releases.stop()

    async def delta(self, *values: bytes, commit: bool = True) -> None:
        for value in values:
            await self.deltas.begin()
            key = topics.lineage_key(1, "online")
            self.deltas.send_nowait(topics.MODEL_DELTAS.name, value, key, partition=PARTITION)
            await (self.deltas.commit() if commit else self.deltas.abort())

    async def release(self, *releases) -> None:
        for release in releases:
            value, key = release.SerializeToString(), release.arm.encode()
            await self.releases.send(topics.MODEL_RELEASES.name, value, key, partition=0)


def settings_for(bootstrap: str, store: Path) -> Settings:
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=bootstrap),
        grpc=GrpcServerSettings(port=0),
        model_store_uri=str(store),
        replica="r1",
        base_retry_ms=100,
    )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[ranking_pb2_grpc.RankingServiceStub]:
    process = Process(settings)
    try:
        replica = await asyncio.wait_for(serve(process, settings), 40)
        async with channel(f"127.0.0.1:{replica.server.port}") as open_channel:
            yield ranking_pb2_grpc.RankingServiceStub(open_channel)
    finally:
        await process.close()
    assert process.failure is None


async def status_of(stub, arm: str = "online") -> ranking_pb2.ArmStatus:
    response = await stub.GetModelStatus(STATUS)
    return next(status for status in response.arms if status.arm == arm)


async def reached(stub, sequence: int) -> ranking_pb2.ArmStatus:
    async with asyncio.timeout(15):
        while (status := await status_of(stub)).model.sequence < sequence:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return status


async def test_committed_deltas_are_followed_bit_for_bit_and_aborted_or_zombie_ones_are_not(
    private_kafka, tmp_path: Path
) -> None:
    chain = Chain(tmp_path / "store")
    chain.epoch = 2
    settings = settings_for(private_kafka.bootstrap, chain.store)
    async with Writer(settings.kafka) as writer:
        await writer.releases.send(topics.MODEL_RELEASES.name, b"\xff\xff", b"online", partition=0)
        await writer.release(chain.release("online", 1), chain.release("frozen", 2, pinned_sequence=0))
        await writer.delta(chain.next(), chain.next())
        async with running(settings) as stub:
            for _ in range(4):
                status = await reached(stub, chain.state.sequence)
                assert status.state_digest == chain.digest(status.model.sequence)
                await writer.delta(chain.forged(), commit=False)
                await writer.delta(chain.forged(epoch=1), chain.next(barriers=(f"b{chain.state.sequence}",)))
            wait = ranking_pb2.RankingServiceWaitForBarrierRequest(barrier_id="b5")
            assert (await stub.WaitForBarrier(wait, timeout=10)).model.sequence >= 6
            status = await reached(stub, 6)
            assert status.state_digest == chain.digest(6)
            assert status.refused["older_epoch"] >= 1
            frozen = await status_of(stub, "frozen")
            assert (frozen.state_digest, frozen.slot_state) == (chain.digest(0), "pinned")

            answer = await stub.Rank(rank_request(shadow_arms=["frozen"]))
            assert answer.shadows[0].scored and answer.provenance.model.sequence == 6
            await stub.EmitBarrier(
                ranking_pb2.RankingServiceEmitBarrierRequest(barrier_id="z", occurred_at=times.from_us(9))
            )
    records = await read_all(settings.kafka, topics.FEATURE_SNAPSHOTS)
    kinds = [events_pb2.EventRecord.FromString(value).WhichOneof("record") for value in records]
    assert (kinds.count("snapshot"), kinds.count("barrier")) == (1, topics.FEATURE_SNAPSHOTS.partitions)
    assert await read_all(settings.kafka, topics.DEAD_LETTERS) == [b"\xff\xff"]


async def read_all(kafka: KafkaSettings, topic: topics.Topic) -> list[bytes]:
    reader = LogReader(kafka, "test")
    await reader.start()
    try:
        where = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
        reader.assign(dict.fromkeys(where, 0))
        ends = await reader.end_offsets(where)
        found: list[bytes] = []
        while [part for part in where if await reader.position(part) < ends[part]]:
            for records in (await reader.poll()).values():
                found += [record.value for record in records]
        return found
    finally:
        await reader.stop()


async def test_killed_and_restarted_replica_catches_up_and_a_term_flushes_its_snapshots(
    private_kafka, tmp_path: Path, free_ports
) -> None:
    chain = Chain(tmp_path / "store")
    settings = settings_for(private_kafka.bootstrap, chain.store)
    port, admin, metrics = free_ports(3)
    command = [
        *(sys.executable, "-m", "services.ranking"),
        *("--grpc.port", str(port), "--grpc.admin_port", str(admin), "--grpc.metrics_port", str(metrics)),
        *("--kafka.bootstrap_servers", private_kafka.bootstrap, "--model_store_uri", str(chain.store)),
        *("--time_scale", "0"),
    ]

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *command, env=dict(os.environ), stderr=asyncio.subprocess.DEVNULL
        )

    async with Writer(settings.kafka) as writer, channel(f"127.0.0.1:{port}") as open_channel:
        stub = ranking_pb2_grpc.RankingServiceStub(open_channel)
        await writer.release(chain.release("online", 1), chain.release("frozen", 2, pinned_sequence=0))
        await writer.delta(chain.next(), chain.next())
        child = await start()
        try:
            await stub.GetModelStatus(STATUS, wait_for_ready=True, timeout=40)
            assert (await reached_when_loaded(stub, 2)).state_digest == chain.digest(2)
            child.send_signal(signal.SIGKILL)
            await child.wait()
            await writer.delta(*(chain.next() for _ in range(20)))
            child = await start()
            await stub.GetModelStatus(STATUS, wait_for_ready=True, timeout=40)
            assert (await reached_when_loaded(stub, 22)).state_digest == chain.digest(22)
            for seed in range(5):
                await stub.Rank(rank_request(seed))
            child.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(child.wait(), 20) == 0
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    records = [
        events_pb2.EventRecord.FromString(v) for v in await read_all(settings.kafka, topics.FEATURE_SNAPSHOTS)
    ]
    assert sorted(record.snapshot.request_id for record in records) == [f"r-{seed}" for seed in range(5)]


async def reached_when_loaded(stub, sequence: int) -> ranking_pb2.ArmStatus:
    async with asyncio.timeout(40):
        while True:
            arms = {status.arm: status for status in (await stub.GetModelStatus(STATUS)).arms}
            if "online" in arms and arms["online"].model.sequence >= sequence:
                return arms["online"]
            await asyncio.sleep(0.05)
