"""A generation switched in a running stack, step by step, with somebody killed at each of them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import grpc

from local.stack import Stack
from rec.model.v1 import model_pb2
from rec.v1 import (
    ranking_pb2,
    ranking_pb2_grpc,
    release_pb2,
    release_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
)
from services.contract import model_store
from tests.feature_kit import SHAPE
from tests.log_kit import chain_of, ids_of, samples_of, trained_once
from tests.system.conftest import Loop
from tests.visit_kit import Visitors

# Far above what an idle machine needs.
RPC_S, WAIT_S = 60.0, 150.0
# In which a visitor's click counts.
WINDOW_S = 3.0
STEP = release_pb2.GenerationStep
SHARES = {"online": 0.7, "candidate": 0.3}


class GoBetween(release_pb2_grpc.ReleaseServiceServicer):
    """Stands between the batch trainer and release; can keep a registration from getting there, or its
    acknowledgement from getting back."""

    def __init__(self, release: str, keeps: str) -> None:
        self._keeps = keeps
        self._channel = grpc.insecure_channel(release)
        self._stub = release_pb2_grpc.ReleaseServiceStub(self._channel)
        self.kept = threading.Event()
        self._let_go = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(4))
        release_pb2_grpc.add_ReleaseServiceServicer_to_server(self, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def ListReleases(self, request, context):
        """Handed on."""
        return self._stub.ListReleases(request, timeout=RPC_S)

    def RegisterGeneration(self, request, context):
        """Handed on, unless it is kept."""
        answer = None
        if self._keeps != "request":
            answer = self._stub.RegisterGeneration(request, timeout=RPC_S)
        self.kept.set()
        self._let_go.wait(WAIT_S)
        return answer or release_pb2.RegisterGenerationResponse()

    def close(self) -> None:
        """Ends it with whoever still waits."""
        self._let_go.set()
        self._server.stop(None).wait()
        self._channel.close()


@dataclass
class Rig:
    """The stack, its visitors, and what a switch is made of."""

    loop: Loop
    visitors: Visitors
    day: str
    # Spans in which ranking was away.
    away: list[tuple[float, float]] = field(default_factory=list)
    # How far into a call release is killed: before its decision stands in the log, and behind it.
    into_s: Iterator[float] = field(default_factory=lambda: cycle((0.01, 0.02, 0.04)))

    @property
    def stack(self) -> Stack:
        return self.loop.stack

    def release(self, call: Callable[[release_pb2_grpc.ReleaseServiceStub], Any]) -> Any:
        """An RPC of release."""
        with grpc.insecure_channel(self.stack.addresses.target("release")) as channel:
            return call(release_pb2_grpc.ReleaseServiceStub(channel))

    def listed(self) -> release_pb2.ListReleasesResponse:
        """What release knows."""
        return self.release(lambda stub: stub.ListReleases(release_pb2.ListReleasesRequest(), timeout=RPC_S))

    def state(self, generation: int) -> str:
        """Where a generation stands; "" for one that is not known."""
        known = {one.generation: one.life.state for one in self.listed().generations}
        return known.get(generation, "")

    def served(self) -> ranking_pb2.ArmStatus:
        """Ranking's arm online."""
        with grpc.insecure_channel(self.stack.addresses.target("ranking")) as channel:
            answer = ranking_pb2_grpc.RankingServiceStub(channel).GetModelStatus(
                ranking_pb2.GetModelStatusRequest(), timeout=RPC_S
            )
        return next(status for status in answer.arms if status.arm == "online")

    def worker(self) -> worker_pb2.GetWorkerStatusResponse:
        """The online trainer's own lineage."""
        with grpc.insecure_channel(self.stack.addresses.target("trainer")) as channel:
            return worker_pb2_grpc.WorkerServiceStub(channel).GetWorkerStatus(
                worker_pb2.GetWorkerStatusRequest(), timeout=RPC_S
            )

    def kill(self, victim: str) -> None:
        """SIGKILL, and up again."""
        began = time.monotonic()
        self.stack.kill(victim, signal.SIGKILL)
        self.stack.restart(victim)
        if victim == "ranking":
            # The gateway's breaker tries it again after a second.
            self.away.append((began, time.monotonic() + 2))

    # -- batch trainer

    def batch(self, *more: str, release: str = "") -> subprocess.Popen[str]:
        """The day, from generation 1 on."""
        parent = next(one for one in self.listed().generations if one.generation == 1).base.manifest_uri
        target = release or self.stack.addresses.target("release")
        command = [
            sys.executable, "-m", "trainer", "batch", "--day", self.day, "--parent", parent,
            "--fit.judged_hours", "0.002", "--fit.patience", "9", "--release_target", target, *more,
        ]  # fmt: skip
        return self.loop.start(command, stderr=subprocess.PIPE)

    def finished(self, process: subprocess.Popen[str]) -> tuple[str, int]:
        """The manifest and the number of what a batch trainer gave."""
        out, err = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, err
        number = next(line for line in err.splitlines() if line.startswith("generation "))
        return out.splitlines()[-1], int(number.split()[1])

    def batch_killed_in_training(self, *more: str) -> tuple[str, int]:
        """Behind the first pass of several."""
        store = Path(self.stack.addresses.model_store_uri)
        before = set(store.glob("batch/*/pass-*.json"))
        process = self.batch(*more)
        self.loop.wait_until(
            lambda: set(store.glob("batch/*/pass-*.json")) - before or process.poll() is not None,
            WAIT_S,
            "a pass",
        )
        assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()
        assert len(self.listed().generations) == 1
        return self.finished(self.batch(*more))

    def batch_killed_at_registration(self, keeps: str, *more: str) -> tuple[str, int]:
        """``keeps``: what never arrives, the request or its acknowledgement."""
        known = len(self.listed().generations)
        between = GoBetween(self.stack.addresses.target("release"), keeps)
        try:
            process = self.batch(*more, release=between.target)
            assert between.kept.wait(WAIT_S), process.communicate(timeout=1)
            process.kill()
            process.communicate()
        finally:
            between.close()
        assert len(self.listed().generations) == known + (keeps == "acknowledgement")
        return self.finished(self.batch(*more))

    # -- steps of a switch

    def take(self, step: Callable[[], str], victim: str) -> str:
        """Takes a step and kills the victim while the others hear of it; release in the middle of the call
        itself, and then the caller asks again. Where the generation stands then."""
        if victim != "release":
            said = step()
            self.kill(victim)
            return said
        with ThreadPoolExecutor(1) as pool:
            first: Future[str] = pool.submit(step)
            time.sleep(next(self.into_s))
            self.kill(victim)
            with_error = first.exception(timeout=RPC_S)
        assert with_error is None or isinstance(with_error, grpc.RpcError), with_error
        return self.again(step)

    def again(self, step: Callable[[], str]) -> str:
        """A caller that did not get its answer asks until it does."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                return step()
            except grpc.RpcError as error:
                not_yet = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION)
                assert error.code() in not_yet and time.monotonic() < deadline, error
                time.sleep(0.5)

    def gate(self, generation: int) -> str:
        """The gate's verdict."""
        request = release_pb2.GateGenerationRequest(generation=generation)
        return self.release(lambda stub: stub.GateGeneration(request, timeout=RPC_S)).state

    def step(self, generation: int, step: STEP, **more: Any) -> str:
        """A step of the generation's life."""
        request = release_pb2.StepGenerationRequest(generation=generation, step=step, **more)
        return self.release(lambda stub: stub.StepGeneration(request, timeout=RPC_S)).state

    def fresh(self, generation: int) -> None:
        """Ranking serves this generation, and deltas go on arriving."""
        before = self.served().model
        self.loop.wait_until(
            lambda: (
                (now := self.served().model).lineage.generation == generation
                and (before.lineage.generation != generation or now.sequence > before.sequence)
            ),
            WAIT_S,
            f"ranking goes on with generation {generation}",
        )

    def switch(self, generation: int, victim: str) -> None:
        """Registered to promoted, the victim killed at each step."""
        before = generation - 1
        assert self.state(generation) == "registered"
        self.kill(victim)
        self.fresh(before)
        assert self.take(lambda: self.gate(generation), victim) == "gated"
        self.fresh(before)
        assert self.take(lambda: self.step(generation, STEP.GENERATION_STEP_SHADOW), victim) == "shadow"
        self.fresh(before)
        compare = {"shares": SHARES}
        step = STEP.GENERATION_STEP_COMPARE
        assert self.take(lambda: self.step(generation, step, **compare), victim) == "ab"
        self.visitors.shares = SHARES
        self.loop.wait_until(
            lambda: any(
                one.arm == "candidate" and one.generation == generation for one in self.visitors.answers[-20:]
            ),
            WAIT_S,
            "the candidate serves its share",
        )
        self.fresh(before)
        # Clients learn first that the experiment is over, then it ends.
        self.visitors.shares = {}
        time.sleep(0.5)
        assert self.take(lambda: self.step(generation, STEP.GENERATION_STEP_PROMOTE), victim) == "promoted"
        self.fresh(generation)

    # -- one consistent generation

    def seen(self, generation: int) -> bool:
        """Whether the arm online has answered a visitor with the generation."""
        return any((one.generation, one.arm) == (generation, "online") for one in self.visitors.answers)

    def agreed(self, generation: int) -> None:
        """Pauses the load until all is at rest: then release, ranking, trainer and log say the same."""
        self.visitors.pause()
        listed = self.listed()
        arms = {one.arm: one for one in listed.releases}
        lives = {one.generation: one.life.state for one in listed.generations}
        online = model_pb2.Lineage(generation=generation, policy="online")
        assert arms["online"].lineage == online
        assert arms["candidate"].state == model_pb2.RELEASE_STATE_RETIRED
        assert lives == dict.fromkeys(range(1, generation), "superseded") | {generation: "promoted"}

        def at_rest() -> bool:
            numbers, served = self.worker().numbers, self.served().model
            quiet = numbers["touched_ids"] == numbers["in_flight_ids"] == 0
            return quiet and numbers["sequence"] == served.sequence and numbers["generation"] == generation

        # Heartbeats close the last windows; then nothing comes any more.
        time.sleep(WINDOW_S + 4)
        settled, deadline = 0, time.monotonic() + WAIT_S
        while settled < 4:
            settled = settled + 1 if at_rest() else 0
            assert time.monotonic() < deadline, (self.worker(), self.served())
            time.sleep(0.5)
        base = next(one for one in listed.generations if one.generation == generation).base
        first, _ = model_store.load_base(base.manifest_uri, SHAPE, manifest_digest=base.manifest_digest)
        counted, cut = ids_of(first), dict(first.sample_offsets)
        bootstrap = self.stack.addresses.kafka_bootstrap
        chain = asyncio.run(chain_of(bootstrap, base, first, generation))
        served, worker = self.served(), self.worker()
        assert served.model.lineage == online
        assert served.model.sequence == worker.numbers["sequence"] == chain.state.sequence > 0
        assert served.state_digest == chain.digests[chain.state.sequence]
        assert worker.numbers["samples_trained"] == chain.state.samples_trained
        # The trainer's own word for its state: the newest base that it wrote.
        newest = model_store.read_manifest(
            model_store.list_bases(self.stack.addresses.model_store_uri, generation, "online")[0]
        )
        assert newest.manifest["digest"] == chain.digests[newest.sequence].hex()
        assert chain.epochs == sorted(chain.epochs)
        trained_once(counted, cut, chain.state, asyncio.run(samples_of(bootstrap)))
