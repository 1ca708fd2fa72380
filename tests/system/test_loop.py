"""The whole loop, in processes: it closes, it survives kills, and its figures can be audited."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time

import grpc
import pyarrow.parquet as pq
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from loadgen.trace_story import STEPS
from rec.v1 import ranking_pb2, ranking_pb2_grpc
from services.contract import delta, model_state, model_store, topics
from tests.feature_kit import SHAPE

pytestmark = [pytest.mark.system, pytest.mark.timeout(420)]

SMALL = (
    "--rate", "20",
    "--min-answered-per-s", "10",
    "--min-delta-rows", "300",
    "--max-freshness-p50-s", "10",
    "--require-uplift", "false",
)  # fmt: skip
KILLED = ("joiner", "trainer", "ranking", "collector", "feature_pipeline")


def finish(load: subprocess.Popen[str], timeout_s: float) -> str:
    output, _ = load.communicate(timeout=timeout_s)
    return output


def served(loop, arm: str) -> ranking_pb2.ArmStatus:
    with grpc.insecure_channel(loop.stack.addresses.target("ranking")) as channel:
        stub = ranking_pb2_grpc.RankingServiceStub(channel)
        answer = stub.GetModelStatus(ranking_pb2.GetModelStatusRequest(), timeout=10)
    return next(status for status in answer.arms if status.arm == arm)


def manifests(loop) -> list[dict]:
    """Every full state that the trainer has written, with the digest that it gave it."""
    return [
        json.loads(path.read_text()) | {"uri": str(path)}
        for path in loop.stack.paths.root.glob("model-store/**/manifest.json")
    ]


def acknowledged(loop) -> list[dict]:
    """Events of the last run, as its client saw them acknowledged."""
    return pq.read_table(loop.out / "evidence/events.parquet").to_pylist()


async def digests_along_the_chain(loop) -> dict[int, str]:
    """Digest of the first base + its deltas, at every sequence on the topic."""
    (first,) = [manifest for manifest in manifests(loop) if manifest["sequence"] == 0]
    state, _ = model_store.load_base(first["uri"], SHAPE)
    number = topics.partition_of(topics.lineage_key(1, "online"), topics.MODEL_DELTAS.partitions)
    where = TopicPartition(topics.MODEL_DELTAS.name, number)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=loop.stack.addresses.kafka_bootstrap, isolation_level="read_committed"
    )
    await consumer.start()
    try:
        consumer.assign([where])
        consumer.seek(where, 0)
        end = (await consumer.end_offsets([where]))[where]
        found = {0: model_state.digest(state).hex()}
        while await consumer.position(where) < end:
            for record in (await consumer.getmany(timeout_ms=500)).get(where, []):
                if record.value is None:  # the trainer's mark
                    continue
                sealed = delta.unseal(record.value)
                assert sealed.header.sequence == state.sequence + 1
                model_state.apply(state, sealed.header, delta.open_body(sealed), sealed.hash)
                found[state.sequence] = model_state.digest(state).hex()
        return found
    finally:
        await consumer.stop()


def test_the_loop_closes_and_base_plus_deltas_is_the_trainers_state(loop):
    load = loop.simulate("--duration-s", "25", *SMALL)
    output = finish(load, 180)
    assert load.returncode == 0, output
    figures = json.loads((loop.out / "demo.json").read_text())
    assert figures["samples"] == figures["impressions"] > 0
    assert figures["errors"] == figures["duplicates"] == 0
    assert figures["deltas_applied"] > 10
    assert figures["candidates_min"] == 1_000

    audit = loop.audit()
    assert audit.returncode == 0, audit.stdout + audit.stderr
    assert "samples on the topic" in audit.stdout

    # base + deltas: what the trainer says of its state in the bases that it wrote, what ranking serves, and
    # what anybody computes from the log, are the same to the bit.
    online = served(loop, "online")
    chain = asyncio.run(digests_along_the_chain(loop))
    assert online.model.sequence == max(chain) > 10
    assert online.state_digest.hex() == chain[online.model.sequence]
    written = [manifest for manifest in manifests(loop) if manifest["sequence"]]
    assert written, "the trainer writes a base every few seconds here"
    for manifest in written:
        assert manifest["digest"] == chain[manifest["sequence"]]
    frozen = served(loop, "frozen")
    assert frozen.model.sequence == 0
    assert frozen.state_digest.hex() == chain[0] != online.state_digest.hex()

    # One click, followed: it is in a delta behind all of these, and a click of the run is in one of these.
    mine = loop.trace()
    assert (mine["ends"], mine["missing"]) == ("", [])
    steps = [moment["step"] for moment in mine["moments"]]
    assert steps == list(STEPS)
    newest = loop.trace("--newest-click")
    assert newest["request_id"] == mine["request_id"]
    clicked = next(row for row in acknowledged(loop) if row["kind"] == "click")
    past = loop.trace(clicked["request_id"])
    assert past["ends"] == ""
    told = {moment["step"]: moment["what"] for moment in past["moments"]}
    sequence = int(told["delta"].partition(":")[0].rpartition(" ")[2])
    assert 0 < sequence <= max(chain)
    assert f"delta {sequence}," in told["applied"]
    nobody = loop.trace("nobody")
    assert "no impression of this request" in nobody["ends"]


def test_kill_9_of_each_part_under_load_loses_and_repeats_nothing(loop):
    seconds = 10 * len(KILLED) + 15
    load = loop.simulate("--duration-s", str(seconds), *SMALL)
    time.sleep(6)
    for name in KILLED:
        loop.stack.kill(name, signal.SIGKILL)
        time.sleep(1)
        loop.stack.restart(name)
        time.sleep(2)
    output = finish(load, seconds + 180)

    figures = json.loads((loop.out / "demo.json").read_text())
    assert figures["errors"] == 0, output
    assert figures["duplicates"] == 0
    # Only what a killed ranking had not flushed, what was answered without it, and what waited for a dead
    # collector longer than the disorder bound may lack a sample; each has its reason.
    assert set(figures["rejected_items"]) <= {"snapshot_lost", "unscored", "late"}
    assert figures["samples"] + sum(figures["rejected_items"].values()) == figures["impressions"]
    audit = loop.audit()
    lines = {line.split("  ")[0]: line for line in audit.stdout.splitlines()}
    for check in ("chain breaks", "shown items explained", "samples on the topic"):
        assert lines[check].endswith("yes"), audit.stdout

    requests = pq.read_table(loop.out / "evidence/requests.parquet").to_pydict()
    degraded = [text for text in requests["degraded"] if "ranking" in text]
    assert degraded, "ranking was dead for a while: some answers must say so"
    assert len(degraded) < len(requests["degraded"]) / 2
    epochs = set(pq.read_table(loop.out / "evidence/deltas.parquet").to_pydict()["epoch"])
    assert len(epochs) == 2, "the trainer was started twice: two epochs, one chain"
