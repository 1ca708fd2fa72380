"""The online trainer as a process, on real Kafka, with the real release service: killed, doubled, fed with
garbage."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from rec.model.v1 import model_pb2
from rec.v1 import worker_pb2, worker_pb2_grpc
from services.contract import model_store, topics
from services.runtime.kafka_consumer import TopicPartition
from tests.rig_kit import WAIT_S, Rig, serving
from tests.trainer_kit import barrier_bytes, new_state

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


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


async def test_samples_that_wait_for_a_barrier_are_learned_in_one_step(rig: Rig) -> None:
    _, port = rig.trainer(RECLOOP_GATHER_MS="0", RECLOOP_BARRIER_GATHER_MS="20000")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await serving(channel)
        # As several joiners commit: one behind the other.
        for _ in range(3):
            await rig.send(topics.SAMPLES.partitions)
            await asyncio.sleep(0.1)
        for partition in range(topics.SAMPLES.partitions):
            await rig.send(0, [(partition, barrier_bytes("b"))])
            await asyncio.sleep(0.1)
        began = time.monotonic()
        chain = await rig.until(lambda chain: "b" in chain.barriers)
        # The barrier ends the wait, not the clock.
        assert time.monotonic() - began < 10
        status = await worker_pb2_grpc.WorkerServiceStub(channel).GetWorkerStatus(
            worker_pb2.GetWorkerStatusRequest(), timeout=10
        )
    assert chain.state.samples_trained == rig.rows_sent
    assert (status.numbers["steps"], chain.state.sequence) == (1, 1)


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
