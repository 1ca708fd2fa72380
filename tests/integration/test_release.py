"""Release over real gRPC and a real Kafka of its own."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from rec.model.v1 import model_pb2
from rec.v1 import release_pb2, release_pb2_grpc
from services.contract import topics
from services.release.__main__ import serve
from services.release.registry import delta_partition
from services.release.release_log import END_MARK
from services.release.settings import Settings
from services.runtime.grpc_client import channel
from services.runtime.grpc_errors import reason_of, violations_of
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.kafka_producer import Producer
from services.runtime.process import Process
from services.runtime.settings import GrpcServerSettings, KafkaSettings

pytestmark = pytest.mark.integration
ONLINE = model_pb2.Lineage(generation=1, policy="online")


def settings_for(bootstrap: str, **changes: object) -> Settings:
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=bootstrap), grpc=GrpcServerSettings(port=0), **changes
    )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[release_pb2_grpc.ReleaseServiceStub, Process]]:
    process = Process(settings)
    try:
        server = await serve(process, settings)
        async with channel(f"127.0.0.1:{server.port}") as open_channel:
            yield release_pb2_grpc.ReleaseServiceStub(open_channel), process
    finally:
        await process.close()
        # A fenced aiokafka client leaves futures with errors that nobody can take. Found here they are log
        # lines; found by a collection inside the compiler they trip CPython 3.11 (AST recursion depth).
        gc.collect()


def registration(byte: int, parent: int = 0) -> release_pb2.RegisterGenerationRequest:
    return release_pb2.RegisterGenerationRequest(
        manifest_uri=f"store/g{byte}", manifest_digest=bytes([byte]) * 32, parent_generation=parent
    )


def base(sequence: int) -> model_pb2.BaseRef:
    return model_pb2.BaseRef(
        manifest_uri=f"store/base-{sequence}",
        manifest_digest=bytes([200]) * 32,
        sequence=sequence,
        chain_hash=bytes([201]) * 32,
        epoch=1,
        delta_partition=delta_partition((1, "online")),
        delta_offset=100 + sequence,
    )


async def records_of(kafka: KafkaSettings, topic: str) -> list[tuple[str, bytes | None]]:
    where = TopicPartition(topic, 0)
    reader = LogReader(kafka, "test")
    await reader.start()
    try:
        reader.assign({where: 0})
        end = (await reader.end_offsets([where]))[where]
        found: list[tuple[str, bytes | None]] = []
        while await reader.position(where) < end:
            found += [(r.key.decode(), r.value) for r in (await reader.poll()).get(where, ())]
        return found
    finally:
        await reader.stop()


async def test_decisions_stand_in_both_logs_and_a_restart_answers_the_same(private_kafka) -> None:
    settings = settings_for(private_kafka.bootstrap)
    partition = delta_partition((1, "online"))
    producer = Producer(settings.kafka, "test")
    await producer.start()
    for _ in range(3):
        await producer.send(topics.MODEL_DELTAS.name, b"older", partition=partition)
    await producer.stop()

    async with running(settings) as (stub, _):
        first = await stub.RegisterGeneration(registration(1))
        assert (first.generation, first.base.delta_partition, first.base.delta_offset) == (1, partition, 3)
        again, second = await asyncio.gather(
            stub.RegisterGeneration(registration(1)), stub.RegisterGeneration(registration(2, parent=1))
        )
        assert (again, second.generation) == (first, 2)
        moved = await stub.RegisterBase(release_pb2.RegisterBaseRequest(lineage=ONLINE, base=base(7)))
        await stub.SetArm(
            release_pb2.SetArmRequest(
                arm="canary", lineage=ONLINE, pinned_sequence=7, state=model_pb2.RELEASE_STATE_SHADOW
            )
        )
        before = await stub.ListReleases(release_pb2.ListReleasesRequest())
    assert {(r.arm, r.base.sequence) for r in before.releases} == {
        ("online", 7),
        ("frozen", 0),
        ("canary", 7),
    }

    written = await records_of(settings.kafka, topics.MODEL_RELEASES.name)
    # Each opening of the log leaves a mark without a value, and nothing else may.
    assert {key for key, value in written if value is None} == {END_MARK.decode()}
    releases = [(key, value) for key, value in written if value is not None]
    events = await records_of(settings.kafka, topics.RELEASE_EVENTS.name)
    assert [key for key, _ in releases] == [key for key, _ in events]
    revisions = [model_pb2.Release.FromString(value).revision for _, value in releases]
    assert revisions == list(range(1, len(revisions) + 1)) and moved.revision in revisions
    assert all(model_pb2.ReleaseEvent.FromString(value).evidence_json for _, value in events)

    async with running(settings) as (stub, _):
        assert await stub.ListReleases(release_pb2.ListReleasesRequest()) == before
        third = await stub.RegisterGeneration(registration(3, parent=2))
        assert third.generation == 3


async def test_a_second_release_fences_the_first_which_then_ends(private_kafka) -> None:
    settings = settings_for(private_kafka.bootstrap)
    async with running(settings) as (old, old_process):
        await old.RegisterGeneration(registration(1))
        async with running(settings) as (new, _):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await old.RegisterGeneration(registration(2))
            assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert old_process.stopping.is_set()
            assert (await new.RegisterGeneration(registration(3))).generation == 2


async def test_errors_are_named_and_a_dead_kafka_refuses_until_it_is_back(private_kafka) -> None:
    settings = settings_for(private_kafka.bootstrap, write_timeout_ms=1_500)
    async with running(settings) as (stub, process):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.RegisterGeneration(release_pb2.RegisterGenerationRequest(manifest_digest=b"x"))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert [field for field, _ in violations_of(refused.value)] == ["manifest_uri", "manifest_digest"]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.RegisterBase(release_pb2.RegisterBaseRequest(lineage=ONLINE, base=base(1)))
        assert (refused.value.code(), reason_of(refused.value)) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")

        await stub.RegisterGeneration(registration(1))
        private_kafka.kill()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.RegisterBase(release_pb2.RegisterBaseRequest(lineage=ONLINE, base=base(5)), timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        private_kafka.start()
        await stub.RegisterBase(release_pb2.RegisterBaseRequest(lineage=ONLINE, base=base(5)), timeout=60)
        listed = await stub.ListReleases(release_pb2.ListReleasesRequest())
        assert {(r.arm, r.base.sequence) for r in listed.releases} == {("online", 5), ("frozen", 0)}
        assert not process.stopping.is_set()


async def test_malformed_record_of_the_log_is_ignored_and_counted(private_kafka) -> None:
    settings = settings_for(private_kafka.bootstrap)
    producer = Producer(settings.kafka, "test")
    await producer.start()
    await producer.send(topics.MODEL_RELEASES.name, b"\xff\xff\xff", key=b"online", partition=0)
    await producer.stop()
    async with running(settings) as (stub, _):
        assert not (await stub.ListReleases(release_pb2.ListReleasesRequest())).releases
        assert (await stub.RegisterGeneration(registration(1))).generation == 1
