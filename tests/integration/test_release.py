"""Release over real gRPC and a real Kafka of its own."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from rec.model.v1 import model_pb2
from rec.v1 import release_pb2, release_pb2_grpc
from services.contract import columns, model_store, topics
from services.contract.model_state import ModelState
from services.contract.topics import delta_partition
from services.release.__main__ import serve
from services.release.release_log import END_MARK
from services.release.scoring import score
from services.release.settings import GateRules, Settings
from services.runtime.grpc_client import channel
from services.runtime.grpc_errors import reason_of, violations_of
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.kafka_producer import Producer
from services.runtime.process import Process
from services.runtime.settings import GrpcServerSettings, KafkaSettings
from tests.trainer_kit import World, new_core, sample_bytes

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
        delta_partition=delta_partition(1, "online"),
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
    partition = delta_partition(1, "online")
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


async def test_a_full_model_is_judged_on_what_was_served_and_goes_on_step_by_step(
    private_kafka, tmp_path: Path
) -> None:
    settings = settings_for(
        private_kafka.bootstrap,
        model_store_uri=str(tmp_path),
        gate=GateRules(min_rows=300, min_positives=5),
    )
    world = World(seed=1, users=20, items=40)
    core = new_core()
    core.train(world.records(150), now_us=1)
    async with running(settings) as (stub, _):
        for _ in range(2):
            saved = model_store.save_base(str(tmp_path), core.state, created_at_us=1)
            await stub.RegisterGeneration(
                release_pb2.RegisterGenerationRequest(
                    manifest_uri=saved.manifest_uri, manifest_digest=saved.manifest_digest
                )
            )
            core.state.samples_trained += 1
        await send_served(settings.kafka, world, core.state)
        gate = release_pb2.GateGenerationRequest(generation=2)
        for _ in range(100):
            served = (await stub.GetServed(release_pb2.GetServedRequest())).arms
            if served and served[0].figures["requests"] >= 60:
                break
            await asyncio.sleep(0.2)
        answer = await stub.GateGeneration(gate)
        assert answer.state == "gated", answer
        assert (served[0].arm, served[0].figures["requests"]) == ("online", 60)

        def step(name: str, **more: object) -> release_pb2.StepGenerationRequest:
            number = release_pb2.GenerationStep.Value(f"GENERATION_STEP_{name}")
            return release_pb2.StepGenerationRequest(generation=2, step=number, **more)

        assert (await stub.StepGeneration(step("SHADOW"))).state == "shadow"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.StepGeneration(step("COMPARE", shares={"online": 0.5, "candidate": 0.4}))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert violations_of(refused.value) == [("shares", "sum 0.9: a sum of 1")]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.StepGeneration(step("UNSPECIFIED"))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await stub.StepGeneration(step("COMPARE", shares={"online": 0.5, "candidate": 0.5}))
        assert (await stub.StepGeneration(step("PROMOTE", reason="looked at"))).state == "promoted"
    # Another process finds all of it in the log.
    async with running(settings) as (stub, _):
        listed = await stub.ListReleases(release_pb2.ListReleasesRequest())
        assert [one.life.state for one in listed.generations] == ["superseded", "promoted"]
        arms = {one.arm: (one.lineage.generation, one.state) for one in listed.releases}
        assert arms["online"] == (2, model_pb2.RELEASE_STATE_SERVING)
        assert arms["candidate"] == (2, model_pb2.RELEASE_STATE_RETIRED)
    events = [
        model_pb2.ReleaseEvent.FromString(value or b"").decision
        for _, value in await records_of(settings.kafka, topics.RELEASE_EVENTS.name)
    ]
    decided = [one for one in events if one not in ("generation_registered", "arm_created", "arm_set")]
    assert decided == ["gate_passed", "shadow_started", "ab_started", "promoted", "superseded"]


async def send_served(kafka: KafkaSettings, world: World, state: ModelState) -> None:
    """Samples that the online arm served with the scores of a model."""
    producer = Producer(kafka, "test")
    await producer.start()
    try:
        for n in range(60):
            sample = world.sample(rows=10)
            sample.arm, sample.model.lineage.generation = "online", 1
            sample.scores = columns.encode(score(state, sample), columns.F32)
            await producer.send(topics.SAMPLES.name, sample_bytes(sample), partition=n % 4)
    finally:
        await producer.stop()
