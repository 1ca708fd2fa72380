"""The turn of a day: its full model is trained beside the load, and the arms get it, each by its policy.

    the lake holds the day -> trainer batch (a child of yesterday's full model) -> release: generation n
    -> daily: pinned to it -> candidate: follows it, trained aside from the day's cut on
    -> its chain has every sample that stood on the log -> online_daily follows it; candidate is retired

`online` stays on the chain of generation 1, `frozen` at its beginning.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local.child import Child
from local.compare.workers import channel_to
from local.days.plan import DAILY, FROZEN, ONLINE_DAILY, moment
from local.errors import StartFailed
from local.paths import REPOSITORY
from local.processes import ASIDE
from local.up import say
from rec.model.v1 import model_pb2
from rec.v1 import release_pb2, release_pb2_grpc
from services.contract import topics
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.settings import KafkaSettings

FIRST = 1
CANDIDATE = "candidate"
CALL_S = 20.0
# Behind a day's end, W and the bound: windows of the next day's first impressions close, the lake flushes.
LOG_LAG_S = 5.0
TRY_AGAIN_S = 3.0
NOT_OVER = "is not over in partitions"
POLL_MS = 200
# A short day has few rows: steps as the online trainer's, or there would be six of them in a pass.
STEPS = ("--learning.minibatch_rows", "256")
SERVING, SHADOW = model_pb2.RELEASE_STATE_SERVING, model_pb2.RELEASE_STATE_SHADOW
RETIRED = model_pb2.RELEASE_STATE_RETIRED


@dataclass(frozen=True)
class Turn:
    """A day's end at ``end_us`` and what came of it, seconds since then. ``batch_s``: of training alone."""

    day: int
    end_us: int
    generation: int
    manifest_uri: str
    batch_s: float
    registered_s: float
    caught_up_s: float


class Release:
    """Arms of a running stack."""

    def __init__(self, target: str) -> None:
        self._target = target

    def point(
        self, arm: str, generation: int, *, pinned: bool = False, state: model_pb2.ReleaseState = SERVING
    ) -> None:
        """An arm gets the full model of a generation, with or without what is learned behind it."""
        request = release_pb2.SetArmRequest(
            arm=arm,
            lineage=model_pb2.Lineage(generation=generation, policy="online"),
            pinned_sequence=0 if pinned else None,
            state=state,
        )
        with self._stub() as stub:
            stub.SetArm(request, timeout=CALL_S)

    def first_manifest(self) -> str:
        """The address of generation 1."""
        with self._stub() as stub:
            listed = stub.ListReleases(release_pb2.ListReleasesRequest(), timeout=CALL_S)
        return next(one.base.manifest_uri for one in listed.generations if one.generation == FIRST)

    @contextmanager
    def _stub(self) -> Iterator[release_pb2_grpc.ReleaseServiceStub]:
        with channel_to("release", self._target) as channel:
            yield release_pb2_grpc.ReleaseServiceStub(channel)


def first_arms(release: Release) -> None:
    """All arms on generation 1: what release has made by itself, and the two of this run."""
    release.point(FROZEN, FIRST, pinned=True)
    release.point(DAILY, FIRST, pinned=True)
    release.point(ONLINE_DAILY, FIRST)


@dataclass(frozen=True)
class Batch:
    """How the day's model is trained: ``environment`` of the command, where its output goes."""

    environment: Mapping[str, str]
    log: Path
    day_s: int

    def train(self, day: int, end_s: int, parent: str, deadline_s: float) -> tuple[int, str, float]:
        """(generation, manifest, seconds) of the day's model; a day that the lake does not hold yet is tried
        again. StartFailed when there is none by ``deadline_s`` (Unix)."""
        when = ["--day", moment(end_s - self.day_s), "--day_s", str(self.day_s)]
        command = [sys.executable, "-m", "trainer", "batch", *when, "--parent", parent, *STEPS]
        while True:
            began = time.monotonic()
            self.log.unlink(missing_ok=True)
            process = Child.start(
                "batch", command, self.log, env=self.environment, cwd=REPOSITORY, nice=ASIDE
            )
            try:
                ended = process.wait(max(1.0, deadline_s - time.time()))
            finally:
                process.stop(1.0)
            if ended and process.exit_code == 0:
                return *said(self.log.read_text()), time.monotonic() - began
            again = ended and NOT_OVER in process.tail() and time.time() + TRY_AGAIN_S < deadline_s
            if not again:
                how = f"status {process.exit_code}" if ended else "nothing before the next day's end"
                raise StartFailed(f"trainer batch, day {day}: {how}; {self.log} ends with:\n{process.tail()}")
            time.sleep(TRY_AGAIN_S)


def said(log: str) -> tuple[int, str]:
    """Generation and manifest in the batch trainer's last words."""
    generation = re.findall(r"^generation (\d+)$", log, re.M)
    manifest = re.findall(r"^[^\s{]\S*manifest\.json$", log, re.M)
    if not generation or not manifest:
        raise StartFailed(f"trainer batch said neither a generation nor a manifest:\n{log[-2_000:]}")
    return int(generation[-1]), manifest[-1]


def turn(
    day: int, end_s: int, parent: str, *, batch: Batch, release: Release, bootstrap: str, deadline_s: float
) -> Turn:
    """Trains, registers and gives the arms the model of a day that ended at ``end_s``."""
    generation, manifest, batch_s = batch.train(day, end_s, parent, deadline_s)
    release.point(DAILY, generation, pinned=True)
    registered_s = time.time() - end_s
    say(f"day {day}: generation {generation} after {registered_s:.0f} s ({batch_s:.0f} s of training)")
    asyncio.run(_caught_up(bootstrap, generation, release, deadline_s))
    release.point(ONLINE_DAILY, generation)
    caught_up_s = time.time() - end_s
    release.point(CANDIDATE, generation, state=RETIRED)
    say(f"day {day}: its chain has caught up after {caught_up_s:.0f} s")
    return Turn(
        day, end_s * 1_000_000, generation, manifest,
        round(batch_s, 2), round(registered_s, 2), round(caught_up_s, 2),
    )  # fmt: skip


async def _caught_up(bootstrap: str, generation: int, release: Release, deadline_s: float) -> None:
    """Points the candidate to a lineage; returns when a delta of it has all samples that there were then."""
    reader = LogReader(KafkaSettings(bootstrap_servers=bootstrap), "demo-days")
    key = topics.lineage_key(generation, "online")
    deltas = TopicPartition(topics.MODEL_DELTAS.name, topics.delta_partition(generation, "online"))
    await reader.start()
    try:
        samples = await reader.partitions(topics.SAMPLES.name)
        # Behind the last record stands the mark of its transaction.
        wanted = {one.partition: end - 1 for one, end in (await reader.end_offsets(samples)).items()}
        reader.assign(await reader.end_offsets([deltas]))
        await asyncio.to_thread(release.point, CANDIDATE, generation, state=SHADOW)
        while time.time() < deadline_s:
            for record in (await reader.poll(POLL_MS, 50)).get(deltas, []):
                if record.key == key and record.value is not None and _has(record.value, wanted):
                    return
    finally:
        await reader.stop()
    raise StartFailed(f"the chain of generation {generation} had not caught up by the end of the next day")


def _has(value: bytes, wanted: Mapping[int, int]) -> bool:
    header = model_pb2.DeltaHeader.FromString(model_pb2.ParameterDelta.FromString(value).header)
    reached = {one.partition: one.offset for one in header.sample_offsets}
    return all(reached.get(partition, 0) >= offset for partition, offset in wanted.items())
