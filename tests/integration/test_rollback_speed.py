"""A minute of learning taken back, on real Kafka with the real ranking: decision to served."""

from __future__ import annotations

import asyncio
import sys
import time

import grpc
import pytest

from rec.v1 import ranking_pb2, ranking_pb2_grpc
from services.contract import topics
from services.runtime.kafka_producer import Producer
from tests.integration.test_rollback_kafka import order, outcome
from tests.rig_kit import WAIT_S, Rig, serving
from tests.trainer_kit import World, sample_bytes

pytestmark = [pytest.mark.integration, pytest.mark.timeout(280)]
MINUTE_S = 60
REQUESTS_PER_S = 60
ROWS = 10
TARGET_S = 3.0


async def traffic(rig: Rig, seconds: float) -> None:
    """As the loop has it: some hundred rows a second, of many users and items."""
    values = [sample_bytes(WORLD.sample(rows=ROWS)) for _ in range(int(seconds * REQUESTS_PER_S))]
    producer = Producer(rig.kafka, "test")
    await producer.start()
    began = time.monotonic()
    try:
        for n, value in enumerate(values):
            await asyncio.sleep(max(0.0, began + n / REQUESTS_PER_S - time.monotonic()))
            producer.send_nowait(topics.SAMPLES.name, value, partition=n % topics.SAMPLES.partitions)
    finally:
        await producer.stop()


async def sequence_served(ranking: ranking_pb2_grpc.RankingServiceStub) -> int:
    answer = await ranking.GetModelStatus(ranking_pb2.GetModelStatusRequest(), timeout=WAIT_S)
    return int(next(arm.model.sequence for arm in answer.arms if arm.arm == "online"))


WORLD = World(seed=5, users=2_000, items=20_000)


async def test_a_minute_of_learning_is_taken_back_within_3_seconds(rig: Rig, capsys) -> None:
    settings = {"RECLOOP_PUBLISH_INTERVAL_MS": "500", "RECLOOP_BASE_INTERVAL_S": "300"}
    rig.trainer(**settings)
    store = {"RECLOOP_MODEL_STORE_URI": rig.store, "RECLOOP_REPLICA": "r1"}
    _, port = rig.process(["services.ranking"], **store)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await asyncio.wait_for(channel.channel_ready(), 2 * WAIT_S)
        await serving(channel)
        ranking = ranking_pb2_grpc.RankingServiceStub(channel)
        await traffic(rig, 5)
        await asyncio.sleep(2)
        good = await sequence_served(ranking)
        assert good > 0
        await traffic(rig, MINUTE_S)
        decided = time.monotonic()
        number = await order(rig, good)
        found = await outcome(rig, number)
        while await sequence_served(ranking) < found.sequence:
            assert time.monotonic() < decided + WAIT_S, "the difference is not served"
            await asyncio.sleep(0.02)
        healthy_s = time.monotonic() - decided
    published_s = (found.published_at.ToMicroseconds() - found.ordered_at.ToMicroseconds()) / 1e6
    undone = found.sequence - 1 - found.done.restored_sequence
    with capsys.disabled():
        said = f"difference sealed {published_s:.2f} s and served {healthy_s:.2f} s after the decision"
        sys.stdout.write(f"\n{undone} deltas, {found.rows} rows taken back; {said}\n")
    assert not found.error and undone > 80
    assert healthy_s <= TARGET_S
