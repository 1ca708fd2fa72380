"""The open-loop load: requests at their intended times, and what their users do with the answers.

Nobody waits for anybody: a request is a task of its own, and its latency counts from the intended time. A
send more than LATE_MS behind is late (the generator is too slow), one beyond ``max_in_flight`` is
dropped; both are counted. Event time is wall time x time_scale from the start on. Who comes, and whether
anybody does, is decided by the scenarios that are on at the intended time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
import xxhash

from loadgen.arrivals import SHOWN, Plan
from loadgen.event_sender import EventSender
from loadgen.evidence import EvidenceRecorder
from loadgen.exposures import Exposures
from loadgen.live import Live
from loadgen.rows import RequestRow
from loadgen.visit import (
    BOT_EXAMINATION,
    EXAMINATION,
    answered_row,
    click,
    clicks,
    failed_row,
    impression,
    judge,
    judge_bot,
)
from loadgen.world import World
from loadgen.world_clock import WorldClock
from rec.v1 import gateway_pb2, gateway_pb2_grpc
from services.contract.assignment import arm_of
from services.contract.times import MICROS, from_us

LATE_MS = 10
DROPPED = "DROPPED"


@dataclass(frozen=True)
class LoadConfig:
    """What each request asks for, and the limits of the generator."""

    run: str
    n: int
    candidates: int
    deadline_s: float
    max_in_flight: int
    shadow_arm: str
    shadow_share: float
    window_s: float
    time_scale: float
    shares: Mapping[str, float]
    experiment: str


def in_share(request_id: str, share: float) -> bool:
    """Whether a request belongs to a hash-sampled share: the same one in every run and tool."""
    return xxhash.xxh64_intdigest(request_id.encode(), seed=1) < share * 2**64


class EventClock:
    """Event time from a wall moment on, scaled; monotonic, whatever happens to the wall clock."""

    def __init__(self, time_scale: float) -> None:
        self._scale = time_scale
        self._started = time.monotonic()
        self.start_us = time.time_ns() // 1000

    def now_us(self) -> int:
        """Event time now."""
        return self.start_us + int((time.monotonic() - self._started) * self._scale * MICROS)


class Load:
    """One run of a plan; ``run`` returns when every answer and every click has happened."""

    def __init__(
        self,
        world: World,
        clock: WorldClock,
        events: EventClock,
        config: LoadConfig,
        *,
        gateway: grpc.aio.Channel,
        sender: EventSender,
        recorder: EvidenceRecorder,
        live: Live,
    ) -> None:
        self._world = world
        self._clock = clock
        self._events = events
        self._stub = gateway_pb2_grpc.GatewayServiceStub(gateway)
        self._sender = sender
        self._recorder = recorder
        self._live = live
        self._config = config
        self._exposures = Exposures(len(world.users))
        self._in_flight: set[asyncio.Task[None]] = set()
        self._clicks_ahead = 0
        self._all_clicked = asyncio.Event()
        self._all_clicked.set()
        # What killed a visit: a fault of the generator, not of the system under load. Ends the run.
        self._defect: BaseException | None = None
        self._enough = False

    def stop(self) -> None:
        """Sends no more requests; ``run`` then ends as behind the last one of its plan."""
        self._enough = True

    async def run(self, plan: Plan) -> None:
        """Sends every request of the plan, then waits for answers and clicks."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        start_us, start_s = time.time_ns() // 1000, self._clock.world_s(self._events.now_us())
        for number, at_s in enumerate(plan.at_s.tolist()):
            ahead = began + at_s - loop.time()
            if ahead > 0:
                await asyncio.sleep(ahead)
            elif number % 16 == 0:
                # Behind: still let answers be received.
                await asyncio.sleep(0)
            if self._defect is not None:
                raise self._defect
            if self._enough:
                break
            world_s = start_s + at_s * self._config.time_scale
            if plan.comes(number, self._world.timeline.arrivals_factor(world_s)):
                visitor = self._world.visitor(world_s, plan.who_draws[number])
                self._launch(plan, number, visitor, start_us + int(at_s * MICROS))
        while self._in_flight:
            await asyncio.wait(self._in_flight)
        if self._defect is not None:
            raise self._defect
        await self._all_clicked.wait()

    def _launch(self, plan: Plan, number: int, user: int, intended_us: int) -> None:
        now_us = time.time_ns() // 1000
        if now_us - intended_us > LATE_MS * 1000:
            self._live.late_sends += 1
        request_id = f"{self._config.run}-{number:08d}"
        if len(self._in_flight) >= self._config.max_in_flight:
            self._live.dropped_sends += 1
            user_id = self._world.visitor_id(user)
            self._done(failed_row(request_id, user_id, (intended_us, now_us, now_us), DROPPED, bot=user < 0))
            return
        task = asyncio.create_task(self._visit(plan, number, user, request_id, intended_us))
        self._in_flight.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        if not task.cancelled() and self._defect is None:
            self._defect = task.exception()

    def _done(self, row: RequestRow) -> None:
        self._recorder.request(row)
        self._live.request(row)

    async def _visit(self, plan: Plan, number: int, user: int, request_id: str, intended_us: int) -> None:
        config = self._config
        user_id, is_bot = self._world.visitor_id(user), user < 0
        shadowed = bool(config.shadow_arm) and in_share(request_id, config.shadow_share)
        request = gateway_pb2.RecommendRequest(
            user_id=user_id,
            n=config.n,
            request_id=request_id,
            occurred_at=from_us(self._events.now_us()),
            candidates=config.candidates,
            arm=arm_of(user_id, config.experiment, config.shares) if config.shares else "",
            shadow_arms=[config.shadow_arm] if shadowed else [],
        )
        sent_us = time.time_ns() // 1000
        try:
            answer = await self._stub.Recommend(request, timeout=config.deadline_s)
        except grpc.aio.AioRpcError as error:
            times_us = (intended_us, sent_us, time.time_ns() // 1000)
            self._done(failed_row(request_id, user_id, times_us, error.code().name, bot=is_bot))
            return
        times_us = (intended_us, sent_us, time.time_ns() // 1000)
        items = [item.item_id for item in answer.items]
        if not items:
            self._done(answered_row(request_id, user_id, times_us, answer, None, bot=is_bot))
            return
        shown_us = self._events.now_us()
        shadow = next((list(one.item_ids) for one in answer.shadows if one.scored), None)
        if is_bot:
            truth = judge_bot(self._world, items)
        else:
            world_s = self._clock.world_s(shown_us)
            truth = judge(self._world, self._exposures, user, items, shadow_ids=shadow, t_s=world_s)
        self._live.unknown_items += truth.unknown
        self._done(answered_row(request_id, user_id, times_us, answer, truth, bot=is_bot))
        shown = items[:SHOWN]
        self._sender.put(impression(request_id, user_id, shown, shown_us, answer.provenance.scored))
        draws, delays = plan.click_draws[number], plan.delay_draws[number]
        looks = BOT_EXAMINATION if is_bot else EXAMINATION
        for place, delay_s in clicks(truth.shown_p, looks, draws, delays, config.window_s):
            at_us = shown_us + int(delay_s * MICROS)
            self._click_later(delay_s / config.time_scale, request_id, user_id, shown[place], at_us)

    def _click_later(self, wall_s: float, request_id: str, user_id: int, item_id: int, at_us: int) -> None:
        self._clicks_ahead += 1
        self._all_clicked.clear()

        def happen() -> None:
            # A little late is still before the window ends: the event carries the time that was meant.
            self._sender.put(click(request_id, user_id, item_id, at_us))
            self._clicks_ahead -= 1
            if not self._clicks_ahead:
                self._all_clicked.set()

        asyncio.get_running_loop().call_later(wall_s, happen)
