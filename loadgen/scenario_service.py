"""ScenarioService: the switches of a running load. They live in the load generator itself, because nobody
else knows the world: the call is answered when the world is another one, and the run's own record says when.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc

from loadgen.rows import ScenarioRow
from loadgen.scenarios import SCENARIOS, scenario
from loadgen.world import World
from loadgen.world_clock import WorldClock
from rec.v1 import scenario_pb2, scenario_pb2_grpc
from services.contract.times import from_us
from services.runtime.access import access_of, door
from services.runtime.grpc_admin import bind
from services.runtime.grpc_guard import Guard
from services.runtime.reflection import add_reflection
from services.runtime.settings import TlsSettings
from services.runtime.telemetry import get_logger
from services.runtime.tls import server_credentials

log = get_logger("loadgen")
NAME = "rec.v1.ScenarioService"
_MAX_CALLS = 16
_PLAINTEXT = TlsSettings()


class ScenarioServicer(scenario_pb2_grpc.ScenarioServiceServicer):
    """Belongs to the event loop of the load."""

    def __init__(self, world: World, clock: WorldClock, event_now_us: Callable[[], int]) -> None:
        self._world = world
        self._clock = clock
        self._event_now_us = event_now_us

    async def SwitchScenario(
        self, request: scenario_pb2.SwitchScenarioRequest, context: grpc.aio.ServicerContext
    ) -> scenario_pb2.SwitchScenarioResponse:
        """InvalidInput: an unknown name."""
        now_s = self._clock.world_s(self._event_now_us())
        changed = self._world.switch(request.name, request.on, now_s)
        log.info("scenario", name=request.name, on=request.on, changed=changed, world_s=round(now_s, 3))
        status = self._status(request.name, now_s)
        return scenario_pb2.SwitchScenarioResponse(scenario=status, changed=changed)

    async def ListScenarios(
        self, request: scenario_pb2.ListScenariosRequest, context: grpc.aio.ServicerContext
    ) -> scenario_pb2.ListScenariosResponse:
        """All of them."""
        now_s = self._clock.world_s(self._event_now_us())
        found = [self._status(name, now_s) for name in SCENARIOS]
        return scenario_pb2.ListScenariosResponse(scenarios=found)

    def _status(self, name: str, now_s: float) -> scenario_pb2.ScenarioStatus:
        since_s = self._world.timeline.since(name, now_s)
        return scenario_pb2.ScenarioStatus(
            name=name,
            description=scenario(name).description,
            on=since_s is not None,
            since=None if since_s is None else from_us(self._clock.event_us(since_s)),
        )


@asynccontextmanager
async def serving(
    servicer: ScenarioServicer, target: str, tls: TlsSettings = _PLAINTEXT
) -> AsyncIterator[None]:
    """Serves on ``host:port``, with reflection; nowhere when it is empty. Unavailable: the port is taken."""
    if not target:
        yield
        return
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    access = access_of(tls)
    guard = Guard(_MAX_CALLS, access)
    guard.stand_before(server)
    scenario_pb2_grpc.add_ScenarioServiceServicer_to_server(servicer, guard)
    add_reflection(door(server, access), (NAME,), asynchronous=True)
    host, _, port = target.rpartition(":")
    bind(server, host, int(port), "scenario_target", server_credentials(tls))
    await server.start()
    try:
        yield
    finally:
        await server.stop(1.0)


def record(world: World, clock: WorldClock, end_s: float) -> list[ScenarioRow]:
    """When which scenario was on, until the end of a load at ``end_s``; what had not begun by then is left
    out."""
    rows = []
    for span in sorted(world.timeline.spans, key=lambda one: one.from_s):
        until_s = min(span.until_s, end_s)
        if span.from_s < until_s:
            from_us, until_us = clock.event_us(span.from_s), clock.event_us(until_s)
            rows.append(ScenarioRow(span.scenario.name, from_us, until_us, span.from_s, until_s))
    return rows
