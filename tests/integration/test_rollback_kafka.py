"""A lineage taken back on real Kafka, with the processes killed between the steps: one consistent chain every
time, the state of then bit for bit, and what was undone is trained by nobody again."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time

import grpc
import pytest

from rec.model.v1 import model_pb2
from rec.v1 import release_pb2
from services.contract import topics
from services.runtime.kafka_consumer import TopicPartition
from tests.rig_kit import WAIT_S, Rig
from tests.trainer_kit import new_state, parameters

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
ONLINE = model_pb2.Lineage(generation=1, policy="online")


async def order(rig: Rig, to_sequence: int) -> int:
    async with rig.release() as release:
        answer = await release.RollBack(
            release_pb2.RollBackRequest(lineage=ONLINE, to_sequence=to_sequence, reason="test"),
            timeout=WAIT_S,
        )
    return int(answer.rollback.order)


async def outcome(rig: Rig, number: int) -> model_pb2.Rollback:
    """Of an order, once release has it."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        async with rig.release() as release:
            try:
                answer = await release.ListReleases(release_pb2.ListReleasesRequest(), timeout=WAIT_S)
            except grpc.aio.AioRpcError:
                continue
        (found,) = (one.rollback for one in answer.rollbacks if one.rollback.order == number)
        if found.HasField("done") or found.error:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"order {number} has no outcome")


@pytest.mark.parametrize("killed", ["nobody", "before the order is seen", "at work", "published, not told"])
async def test_a_lineage_is_taken_back_whatever_dies(rig: Rig, killed: str) -> None:
    process, _ = rig.trainer()
    for _ in range(3):
        await rig.send(12)
        good = await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent)
    then, trained = parameters(good.state), rig.rows_sent
    await rig.send(40)
    poisoned = await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent)
    assert parameters(poisoned.state) != then

    if killed == "before the order is seen":
        process.kill()
        process.wait()
    number = await order(rig, good.state.sequence)
    if killed == "at work":
        await asyncio.sleep(0.3)
        process.kill()
    if killed == "published, not told":
        rig.releasing.send_signal(signal.SIGSTOP)
        await rig.until(lambda chain: chain.state.sequence > poisoned.state.sequence)
        process.kill()
        process.wait()
        rig.releasing.send_signal(signal.SIGCONT)
    if killed != "nobody":
        process, _ = rig.trainer()
    done = await outcome(rig, number)
    assert (done.error, done.done.restored_sequence) == ("", good.state.sequence)
    back = await rig.follow()
    assert parameters(back.state) == then
    assert back.state.sequence == done.sequence == poisoned.state.sequence + 1
    assert back.epochs == sorted(back.epochs) and back.epochs[-1] > poisoned.epochs[-1]

    # Goes on behind what was undone: neither that nor anything else is trained twice.
    await rig.send(20)
    undone = rig.rows_sent - 100 - trained
    after = await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent - undone)
    assert parameters(after.state) != then
    await asyncio.sleep(0.5)
    assert (await rig.follow()).state.samples_trained == rig.rows_sent - undone
    ranges = {one.partition: (one.start, one.end) for one in done.done.quarantined}
    assert ranges == {
        p: (good.state.sample_offsets[p], poisoned.state.sample_offsets[p])
        for p in range(topics.SAMPLES.partitions)
    }
    decisions = []
    async for record in rig.read(TopicPartition(topics.RELEASE_EVENTS.name, 0)):
        event = model_pb2.ReleaseEvent.FromString(record.value or b"")
        if "roll" in event.decision:
            decisions.append((event.decision, json.loads(event.evidence_json)["order"]))
    assert decisions == [("rollback_ordered", number), ("rolled_back", number)]


async def test_a_new_generation_does_not_learn_what_was_undone(rig: Rig) -> None:
    rig.trainer()
    await rig.send(20)
    good = await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent)
    await rig.send(40)
    await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent)
    done = await outcome(rig, await order(rig, good.state.sequence))
    assert not done.error
    # Bound to the very beginning: its lineage reads all samples.
    assert await rig.generation(new_state(seed=2)) == 2
    await rig.point("candidate", 2, model_pb2.RELEASE_STATE_SHADOW)
    await rig.until(lambda chain: chain.state.samples_trained == 100, generation=2)
    await rig.send(4)
    chain = await rig.until(lambda chain: chain.state.samples_trained >= 120, generation=2)
    assert chain.state.samples_trained == 120


async def test_the_command_line_takes_a_lineage_back_and_refuses_by_name(rig: Rig) -> None:
    rig.trainer()
    await rig.send(20)
    good = await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent)
    await rig.send(20)
    await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent)

    async def said(*argv: str) -> tuple[int, str]:
        target = f"127.0.0.1:{rig.release_port}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.release", "--target", target, *argv,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await process.communicate()
        return process.returncode or 0, out.decode()

    code, out = await said("rollback", "1", "--sequence", str(good.state.sequence))
    assert (code, json.loads(out)["done"]["restored_sequence"]) == (0, str(good.state.sequence))
    code, out = await said("status")
    assert code == 0 and '"state": "promoted"' in out
    code, out = await said("promote", "7")
    assert (code, "NOT_FOUND: generation 7" in out) == (2, True)


async def test_a_target_that_nothing_reaches_back_to_is_reported_and_training_goes_on(rig: Rig) -> None:
    rig.trainer()
    await rig.send(20)
    await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent)
    done = await outcome(rig, await order(rig, 10_000))
    assert "nothing to undo" in done.error
    await rig.send(20)
    await rig.until(lambda chain: chain.state.samples_trained == rig.rows_sent)
