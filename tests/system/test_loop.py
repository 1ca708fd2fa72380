"""The whole loop, in processes: it closes, it survives kills, and its figures can be audited."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import grpc
import pyarrow.parquet as pq
import pytest

from rec.v1 import ranking_pb2, ranking_pb2_grpc

pytestmark = [pytest.mark.system, pytest.mark.timeout(420)]

SMALL = ["--rate", "25", "--min-answered-per-s", "15", "--min-delta-rows", "300"]
KILLED = ("joiner", "trainer", "ranking", "collector", "feature_pipeline")


def finish(load: subprocess.Popen[str], timeout_s: float) -> str:
    output, _ = load.communicate(timeout=timeout_s)
    return output


def served_state(loop, arm: str) -> ranking_pb2.ArmStatus:
    with grpc.insecure_channel(loop.stack.addresses.target("ranking")) as channel:
        stub = ranking_pb2_grpc.RankingServiceStub(channel)
        answer = stub.GetModelStatus(ranking_pb2.GetModelStatusRequest(), timeout=10)
    return next(status for status in answer.arms if status.arm == arm)


def test_the_loop_closes_and_base_plus_deltas_is_the_trainers_state(loop):
    load = loop.simulate("--duration-s", "25", "--no-require-uplift", *SMALL)
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

    # A trainer that starts again is the newest base + its own deltas; the base that it writes on its way
    # down names the digest of its state. Ranking has the same digest at the same sequence.
    served = loop.wait_until(
        lambda: (s := served_state(loop, "online")).model.sequence >= figures["deltas_published"] and s,
        20,
        "ranking has every delta",
    )
    loop.stack.kill("trainer", signal.SIGKILL)
    loop.stack.restart("trainer")
    loop.stack.kill("trainer", signal.SIGTERM)
    manifests = sorted(
        loop.stack.paths.root.glob("model-store/**/*.json"), key=lambda path: path.stat().st_mtime
    )
    manifest = json.loads(manifests[-1].read_text())
    assert manifest["sequence"] == served.model.sequence
    assert manifest["state_digest"] == served.state_digest.hex()

    frozen = served_state(loop, "frozen")
    assert frozen.model.sequence == 0
    assert frozen.state_digest != served.state_digest


def test_kill_9_of_each_part_under_load_loses_and_repeats_nothing(loop):
    seconds = 12 * len(KILLED) + 10
    load = loop.simulate("--duration-s", str(seconds), "--no-require-uplift", *SMALL)
    time.sleep(6)
    for name in KILLED:
        loop.stack.kill(name, signal.SIGKILL)
        time.sleep(1)
        loop.stack.restart(name)
        time.sleep(3)
    output = finish(load, seconds + 180)

    figures = json.loads((loop.out / "demo.json").read_text())
    assert figures["errors"] == 0, output
    assert figures["duplicates"] == 0
    # Only what a killed ranking had not flushed, and what was answered without it, may lack a sample; each
    # has its reason.
    assert set(figures["rejected_items"]) <= {"snapshot_lost", "unscored"}
    assert figures["samples"] + sum(figures["rejected_items"].values()) == figures["impressions"]
    audit = loop.audit()
    lines = {line.split("  ")[0]: line for line in audit.stdout.splitlines()}
    for check in ("chain breaks", "shown items explained", "samples on the topic"):
        assert lines[check].endswith("yes"), audit.stdout

    requests = pq.read_table(loop.out / "evidence/requests.parquet").to_pydict()
    degraded = [d for d in requests["degraded"] if "ranking" in d]
    assert degraded, "ranking was dead for a while: some answers must say so"
    assert len(degraded) < len(requests["degraded"]) / 2
    epochs = set(pq.read_table(loop.out / "evidence/deltas.parquet").to_pydict()["epoch"])
    assert len(epochs) == 2, "the trainer was started twice: two epochs, one chain"
