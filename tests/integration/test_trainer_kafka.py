"""The online trainer as a process, on real Kafka, with the real release service: killed, doubled, fed with
garbage."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rec.model.v1 import model_pb2
from rec.v1 import release_pb2, release_pb2_grpc, worker_pb2, worker_pb2_grpc
from services.contract import delta, model_state, model_store, topics
from services.contract.chain import Action, ModelSlot, Position
from services.contract.model_state import ModelState
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.kafka_producer import Producer
from services.runtime.settings import KafkaSettings
from tests.feature_kit import SHAPE
from tests.trainer_kit import World, barrier_bytes, new_state, sample_bytes
from trainer.log_end import read_to

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
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
        self.release_port = self._process(["services.release"])[1]
        # Of each generation.
        self.bases: dict[int, model_pb2.BaseRef] = {}

    def trainer(self, **settings: str) -> tuple[subprocess.Popen[bytes], int]:
        """A trainer process and its service port."""
        return self._process(["trainer", "online"], **settings)

    def _process(self, module: list[str], **settings: str) -> tuple[subprocess.Popen[bytes], int]:
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
        key = topics.lineage_key(generation, "online")
        async for record in self.read(TopicPartition(topics.MODEL_DELTAS.name, base.delta_partition)):
            # Neither the mark of a start nor another lineage of the partition.
            if record.value is not None and record.key == key:
                chain.offer(record.value, record.offset)
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
        self.slot = ModelSlot(generation, "online", SHAPE.model_hash)
        self.slot.base_loaded(Position(0, 0, base.chain_hash, base.delta_offset))
        self.digests = {0: model_state.digest(state)}
        self.barriers: list[str] = []
        self.epochs: list[int] = []

    def offer(self, value: bytes, offset: int) -> None:
        sealed = delta.unseal(value)
        verdict = self.slot.offer(sealed.header, sealed.hash, offset)
        assert verdict.action is Action.APPLY, verdict
        model_state.apply(self.state, sealed.header, delta.open_body(sealed), sealed.hash)
        self.slot.applied(sealed.header, sealed.hash, offset)
        self.digests[self.state.sequence] = model_state.digest(self.state)
        self.barriers += sealed.header.barrier_ids
        self.epochs.append(sealed.header.epoch)


@pytest.fixture
async def rig(private_kafka, tmp_path: Path, free_ports: Callable[[int], list[int]]) -> AsyncIterator[Rig]:
    made = Rig(private_kafka.bootstrap, tmp_path, free_ports)
    try:
        assert await made.generation(new_state()) == 1
        yield made
    except BaseException:
        sys.stderr.write(made.logs())
        raise
    finally:
        made.close()


@pytest.fixture
def bases(rig: Rig) -> Iterator[Callable[[], list[model_store.SavedBase]]]:
    def find() -> list[model_store.SavedBase]:
        manifests = Path(rig.store).glob("generation-000001/*/manifest.json")
        return sorted((model_store.read_manifest(str(path)) for path in manifests), key=lambda b: b.sequence)

    yield find


async def test_a_trainer_killed_under_load_neither_forks_nor_forgets_nor_repeats(
    rig: Rig, bases: Callable[[], list[model_store.SavedBase]]
) -> None:
    process, _ = rig.trainer()
    for _ in range(2):
        before = (await rig.follow()).state.sequence
        await rig.send(60)
        await rig.until(lambda chain, before=before: chain.state.sequence > before)
        process.kill()
        process.wait()
        await rig.send(20)
        process, port = rig.trainer()
    # One copy of the barrier is read by a trainer that dies, the others by its successor.
    await rig.send(0, [(0, barrier_bytes("b"))])
    await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent)
    await asyncio.sleep(0.5)
    process.kill()
    process.wait()
    bad = [(1, b"\xff\xff garbage"), *((p, barrier_bytes("b")) for p in (1, 2, 3))]
    await rig.send(1, bad)
    process, port = rig.trainer()
    chain = await rig.until(lambda chain: "b" in chain.barriers)
    assert chain.barriers == ["b"]
    assert chain.state.samples_trained == rig.rows_sent
    assert chain.epochs == sorted(chain.epochs) and chain.epochs[-1] >= 3
    dead = [r async for r in rig.read(TopicPartition(topics.DEAD_LETTERS.name, 0))]
    assert [(r.value, dict(r.headers)["reason"]) for r in dead] == [(b"\xff\xff garbage", b"undecodable")]

    deadline = time.monotonic() + WAIT_S
    while not (kept := [base for base in bases() if base.sequence]):
        assert time.monotonic() < deadline, "no base was written"
        await rig.send(1)
        await asyncio.sleep(0.5)
    chain = await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent)
    for base in kept:
        assert base.manifest["digest"] == chain.digests[base.sequence].hex()
        assert base.chain_hash == chain.slot._hashes[base.sequence]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        status = await worker_pb2_grpc.WorkerServiceStub(channel).GetWorkerStatus(
            worker_pb2.GetWorkerStatusRequest(), timeout=10, wait_for_ready=True
        )
    assert status.state == "running" and status.last_barrier_id == "b"
    assert status.numbers["sequence"] == chain.state.sequence
    assert status.numbers["samples_trained"] == rig.rows_sent
    assert [part.position for part in status.partitions] == [part.end for part in status.partitions]
    process.terminate()
    assert process.wait(timeout=20) == 0


async def test_a_zombie_trainer_is_fenced_and_the_chain_goes_on_without_a_fork(rig: Rig) -> None:
    zombie, _ = rig.trainer()
    await rig.send(20)
    await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent)
    zombie.send_signal(signal.SIGSTOP)
    successor, _ = rig.trainer()
    await rig.send(20)
    await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent)
    zombie.send_signal(signal.SIGCONT)
    await rig.send(20)
    chain = await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent)
    assert await asyncio.to_thread(zombie.wait, 30) == 1
    assert successor.poll() is None
    assert chain.epochs == sorted(chain.epochs)
    assert len(chain.digests) == chain.state.sequence + 1


async def test_when_kafka_goes_away_and_comes_back_the_trainer_goes_on(rig: Rig, private_kafka) -> None:
    process, _ = rig.trainer()
    await rig.send(20)
    await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent)
    private_kafka.kill()
    await asyncio.sleep(2)
    await asyncio.to_thread(private_kafka.start)
    await rig.send(40)
    chain = await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent)
    assert process.poll() is None
    assert set(chain.epochs) == {1}


SERVING, SHADOW, RETIRED = (
    model_pb2.RELEASE_STATE_SERVING,
    model_pb2.RELEASE_STATE_SHADOW,
    model_pb2.RELEASE_STATE_RETIRED,
)
BATCH_ROWS = 200


@pytest.mark.parametrize("killed", ["never", "aside", "taken over"])
async def test_a_generation_is_switched_with_every_sample_trained_once(rig: Rig, killed: str) -> None:
    settings = {"RECLOOP_LINEAGE_LINGER_S": "1.5", "RECLOOP_BASE_INTERVAL_S": "60"}
    process, _ = rig.trainer(**settings)
    await rig.send(BATCH_ROWS // 5)
    await rig.until(lambda chain: chain.state.samples_trained == BATCH_ROWS)
    # What a batch trainer gives: BATCH_ROWS rows learned, bound to the offsets behind them.
    full = new_state(seed=2)
    full.samples_trained = BATCH_ROWS
    full.sample_offsets = dict.fromkeys(range(topics.SAMPLES.partitions), BATCH_ROWS // 20)
    await rig.send(40)

    async def reach(step: str) -> None:
        nonlocal process
        if step == killed:
            process.kill()
            process.wait()
            process, _ = rig.trainer(**settings)
        await rig.send(8)

    assert await rig.generation(full) == 2
    await rig.point("candidate", 2, SHADOW)
    await reach("aside")
    caught_up = await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent, 2)
    # Served by the old one all the while.
    await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent)
    await reach("caught up")
    await rig.point("online", 2, SERVING)
    await rig.point("candidate", 2, RETIRED)
    await reach("taken over")
    chain = await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent, 2)
    await asyncio.sleep(4)
    old = (await rig.follow()).state
    await reach("old one ended")
    chain = await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent, 2)
    assert chain.state.sequence > caught_up.state.sequence
    assert chain.digests[caught_up.state.sequence] == caught_up.digests[caught_up.state.sequence]
    # Nobody follows the old one: it is not trained on, and it had lost nothing until then.
    assert (await rig.follow()).state.samples_trained == old.samples_trained
    if killed == "never":
        assert old.samples_trained in {rig.rows_sent - 40, rig.rows_sent - 80}
    process.terminate()
    assert process.wait(timeout=20) == 0
