"""Visitors of a running stack: a steady load of whole visits (asked, shown, clicked) in event time of its
own, every answer kept."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import grpc
import numpy as np

from loadgen.arrivals import SHOWN
from loadgen.exposures import Exposures
from loadgen.visit import EXAMINATION, click, clicks, impression, judge
from loadgen.world import World
from loadgen.world_config import WorldConfig
from rec.v1 import collector_pb2, collector_pb2_grpc, gateway_pb2, gateway_pb2_grpc
from services.contract.assignment import arm_of
from services.contract.times import MICROS, from_us

EXPERIMENT = "switch"
CANDIDATES = 100
# Above the worst stall of two cores that run everything.
DEADLINE_S = 5.0
EVENT_TRIES = 30


@dataclass(frozen=True)
class Answer:
    """One request: sent and answered (monotonic seconds), its status, who answered, what was missing."""

    sent_s: float
    answered_s: float
    status: str
    arm: str = ""
    generation: int = 0
    sequence: int = 0
    degraded: tuple[str, ...] = ()


@dataclass
class Visitors:
    """``rate`` visits a second from ``start`` to ``stop``; ``pause`` returns when all have ended.

    Event time begins at ``start_us`` and passes as fast as the wall's. ``shares`` by arm: who asks for which
    (contract.assignment); empty = nobody names one.
    """

    gateway: str
    collector: str
    config: WorldConfig
    start_us: int
    rate: float
    window_s: float
    shares: dict[str, float] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    shown: int = 0
    lost: int = 0
    # Faults of the visitors themselves.
    defects: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._world = World(self.config, drift=0.0)
        self._began_s = time.monotonic()
        self._random = np.random.default_rng(11)
        self._exposures = Exposures(len(self._world.users))
        self._running, self._stopping = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(48)
        self._open: set[Future[None]] = set()
        self._channels = [grpc.insecure_channel(target) for target in (self.gateway, self.collector)]
        self._ask = gateway_pb2_grpc.GatewayServiceStub(self._channels[0])
        self._tell = collector_pb2_grpc.CollectorServiceStub(self._channels[1])
        self._thread = threading.Thread(target=self._run, name="visitors", daemon=True)

    def now_us(self) -> int:
        """Event time."""
        return self.start_us + int((time.monotonic() - self._began_s) * MICROS)

    def start(self) -> None:
        """Also after ``pause``."""
        self._running.set()
        if not self._thread.is_alive():
            self._thread.start()

    def pause(self) -> None:
        """No new visits; returns when those under way have ended, clicks and all."""
        self._running.clear()
        while self._open:
            time.sleep(0.05)

    def stop(self) -> None:
        """For good."""
        self._stopping.set()
        self._running.set()
        self._thread.join()
        self.pause()
        self._pool.shutdown()
        for channel in self._channels:
            channel.close()

    def _run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            self._running.wait()
            if self._stopping.is_set():
                return
            visit = self._pool.submit(self._visit, number)
            self._open.add(visit)
            visit.add_done_callback(self._ended)
            number += 1
            self._stopping.wait(1 / self.rate)

    def _ended(self, visit: Future[None]) -> None:
        self._open.discard(visit)
        if (error := visit.exception()) is not None:
            self.defects.append(error)

    def _visit(self, number: int) -> None:
        world = self._world
        with self._lock:
            user = int(self._random.integers(self.config.users))
            draws, delays = self._random.random((2, SHOWN)).astype(np.float32)
        user_id, request_id = int(world.users.ids[user]), f"visit-{number:06d}"
        sent_s = time.monotonic()
        arm = arm_of(user_id, EXPERIMENT, self.shares) if self.shares else ""
        try:
            answer = self._ask.Recommend(
                gateway_pb2.RecommendRequest(
                    user_id=user_id,
                    n=SHOWN,
                    request_id=request_id,
                    occurred_at=from_us(self.now_us()),
                    candidates=CANDIDATES,
                    arm=arm,
                ),
                timeout=DEADLINE_S,
            )
        except grpc.RpcError as error:
            status = f"{error.code().name} {error.details()}"
            self.answers.append(Answer(sent_s, time.monotonic(), status))
            return
        found = answer.provenance
        self.answers.append(
            Answer(
                sent_s,
                time.monotonic(),
                "OK",
                found.arm,
                found.model.lineage.generation,
                found.model.sequence,
                tuple(f"{one.source}:{one.reason}" for one in found.degraded),
            )
        )
        self._see(user, request_id, answer, draws, delays)

    def _see(
        self,
        user: int,
        request_id: str,
        answer: gateway_pb2.RecommendResponse,
        draws: np.ndarray,
        delays: np.ndarray,
    ) -> None:
        """Shown, then clicked after a while, each told until it is acknowledged."""
        user_id, at_us = int(self._world.users.ids[user]), self.now_us()
        items = [item.item_id for item in answer.items][:SHOWN]
        with self._lock:
            t_s = (at_us - self.start_us) / MICROS
            truth = judge(self._world, self._exposures, user, items, shadow_ids=None, t_s=t_s)
            self.shown += len(items)
        event = impression(request_id, user_id, items, at_us, answer.provenance.scored)
        self._told(collector_pb2.LogEventsRequest(impressions=[event]), len(items))
        done_s = time.monotonic()
        for place, delay_s in sorted(
            clicks(truth.shown_p, EXAMINATION, draws, delays, self.window_s), key=lambda one: one[1]
        ):
            time.sleep(max(0.0, done_s + delay_s - time.monotonic()))
            event_us = at_us + int(delay_s * MICROS)
            clicked = click(request_id, user_id, items[place], event_us)
            self._told(collector_pb2.LogEventsRequest(actions=[clicked]), 0)

    def _told(self, request: collector_pb2.LogEventsRequest, items: int) -> None:
        for _ in range(EVENT_TRIES):
            with suppress(grpc.RpcError):
                self._tell.LogEvents(request, timeout=DEADLINE_S)
                return
            time.sleep(0.2)
        self.lost += items
