"""Trainers as processes on real Kafka, beside the real release service, and who follows what they publish."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rec.model.v1 import model_pb2
from rec.v1 import release_pb2, release_pb2_grpc
from services.contract import delta, model_state, model_store, topics
from services.contract.chain import Action, ModelSlot, Position
from services.contract.model_state import ModelState
from services.runtime.kafka_consumer import ConsumerRecord, LogReader, TopicPartition
from services.runtime.kafka_producer import Producer
from services.runtime.settings import KafkaSettings
from tests.feature_kit import SHAPE
from tests.trainer_kit import World, sample_bytes
from trainer.log_end import read_to

WAIT_S = 60.0


class Rig:
    """Kafka, a model store with generation 1, the release service, and trainers that tests start and kill."""

    def __init__(self, bootstrap: str, folder: Path, ports: Callable[[int], list[int]]) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=bootstrap)
        self.store = str(folder / "store")
        self.world = World(seed=3, users=40, items=60)
        self.rows_sent = 0
        self._folder = folder
        self._ports = ports
        self._started: list[subprocess.Popen[bytes]] = []
        self.releasing, self.release_port = self.process(["services.release"])
        # Of each generation.
        self.bases: dict[int, model_pb2.BaseRef] = {}

    def trainer(self, **settings: str) -> tuple[subprocess.Popen[bytes], int]:
        """A trainer process and its service port."""
        return self.process(["trainer", "online"], **settings)

    def process(self, module: list[str], **settings: str) -> tuple[subprocess.Popen[bytes], int]:
        """A process of this module and its service port."""
        port, admin, metrics = self._ports(3)
        environment = os.environ | {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "RECLOOP_GRPC__PORT": str(port),
            "RECLOOP_GRPC__ADMIN_PORT": str(admin),
            "RECLOOP_GRPC__METRICS_PORT": str(metrics),
            "OMP_NUM_THREADS": "1",
        }
        if module[0] == "trainer":
            environment |= {
                "RECLOOP_MODEL_STORE_URI": self.store,
                "RECLOOP_RELEASE_TARGET": f"127.0.0.1:{self.release_port}",
                "RECLOOP_PUBLISH_INTERVAL_MS": "100",
                "RECLOOP_BASE_INTERVAL_S": "1",
            }
        environment |= settings
        with (self._folder / f"{module[0]}-{port}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *module], stdout=log, stderr=log, env=environment
            )
        self._started.append(process)
        return process, port

    async def generation(self, state: ModelState) -> int:
        """Writes and registers a full model."""
        saved = model_store.save_base(self.store, state, created_at_us=1)
        async with self.release() as release:
            answer = await release.RegisterGeneration(
                release_pb2.RegisterGenerationRequest(
                    manifest_uri=saved.manifest_uri, manifest_digest=saved.manifest_digest
                ),
                timeout=WAIT_S,
                wait_for_ready=True,
            )
        self.bases[answer.generation] = answer.base
        return int(answer.generation)

    async def point(self, arm: str, generation: int, state: model_pb2.ReleaseState) -> None:
        """Points an arm to a generation's lineage."""
        async with self.release() as release:
            lineage = model_pb2.Lineage(generation=generation, policy="online")
            await release.SetArm(
                release_pb2.SetArmRequest(arm=arm, lineage=lineage, state=state), timeout=WAIT_S
            )

    @asynccontextmanager
    async def release(self) -> AsyncIterator[release_pb2_grpc.ReleaseServiceStub]:
        """The release service, serving."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.release_port}") as channel:
            await serving(channel)
            yield release_pb2_grpc.ReleaseServiceStub(channel)

    async def send(self, requests: int, extra: list[tuple[int, bytes]] | None = None) -> None:
        """Samples to all partitions in turn, then (partition, value) pairs as they are."""
        producer = Producer(self.kafka, "test")
        await producer.start()
        try:
            for n in range(requests):
                value = sample_bytes(self.world.sample(rows=5))
                await producer.send(topics.SAMPLES.name, value, partition=n % topics.SAMPLES.partitions)
                self.rows_sent += 5
            for partition, value in extra or []:
                await producer.send(topics.SAMPLES.name, value, partition=partition)
        finally:
            await producer.stop()

    async def follow(self, generation: int = 1) -> Chain:
        """Reads the whole chain of a generation from its base, as ranking would."""
        base = self.bases[generation]
        state, _ = model_store.load_base(base.manifest_uri, SHAPE, manifest_digest=base.manifest_digest)
        chain = Chain(state, base, generation)
        async for record in self.read(TopicPartition(topics.MODEL_DELTAS.name, base.delta_partition)):
            chain.offer(record)
        return chain

    async def read(self, where: TopicPartition) -> AsyncIterator:
        """Everything committed in a partition."""
        reader = LogReader(self.kafka, "test reader")
        await reader.start()
        try:
            async for record in read_to(reader, where, 0):
                yield record
        finally:
            await reader.stop()

    async def until(self, reached: Callable[[Chain], bool], generation: int = 1) -> Chain:
        """Follows until the condition holds."""
        deadline = time.monotonic() + WAIT_S
        while True:
            chain = await self.follow(generation)
            if reached(chain):
                return chain
            assert time.monotonic() < deadline, (chain.state.sequence, chain.state.samples_trained)
            await asyncio.sleep(0.3)

    def logs(self) -> str:
        """What the processes have written, for failures."""
        return "\n".join(path.read_text()[-2_000:] for path in self._folder.glob("*.log"))

    def close(self) -> None:
        """Ends every process."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


async def serving(channel: grpc.aio.Channel) -> None:
    """Returns when the service says SERVING."""
    health = health_pb2_grpc.HealthStub(channel)
    deadline = time.monotonic() + WAIT_S
    while True:
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S, wait_for_ready=True)
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return
        assert time.monotonic() < deadline, "release does not serve"
        await asyncio.sleep(0.1)


class Chain:
    """A follower that demands an unbroken chain, and remembers the digest at every sequence."""

    def __init__(self, state: ModelState, base: model_pb2.BaseRef, generation: int) -> None:
        self.state = state
        # The number was given when the base was there.
        state.generation, state.chain_hash = generation, base.chain_hash
        self._key = topics.lineage_key(generation, "online")
        self.slot = ModelSlot(generation, "online", SHAPE.model_hash)
        self.slot.base_loaded(Position(0, 0, base.chain_hash, base.delta_offset))
        self.digests = {0: model_state.digest(state)}
        self.barriers: list[str] = []
        self.epochs: list[int] = []

    def offer(self, record: ConsumerRecord) -> None:
        """A record of its partition, unless it is the mark of a start or of another lineage."""
        if record.value is None or record.key != self._key:
            return
        sealed = delta.unseal(record.value)
        verdict = self.slot.offer(sealed.header, sealed.hash, record.offset)
        assert verdict.action is Action.APPLY, verdict
        model_state.apply(self.state, sealed.header, delta.open_body(sealed), sealed.hash)
        self.slot.applied(sealed.header, sealed.hash, record.offset)
        self.digests[self.state.sequence] = model_state.digest(self.state)
        self.barriers += sealed.header.barrier_ids
        self.epochs.append(sealed.header.epoch)
