"""Statuses over gRPC: release's generations and arms, how far the workers are behind, a load's scenarios."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from rec.v1 import (
    release_pb2,
    release_pb2_grpc,
    scenario_pb2,
    scenario_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
)
from services.contract.times import to_us
from services.page.neighbours import open_channel
from services.page.settings import Settings
from services.page.sources import Heard

# worker -> the source that its status is
WORKERS = {name: f"{name} status" for name in ("joiner", "feature_pipeline", "trainer")}
SCENARIOS = "scenarios"
RELEASES = "releases"
Row = dict[str, Any]


class StatusAsks:
    """One channel per target, closed by ``close``."""

    def __init__(self, settings: Settings) -> None:
        self._timeout_s = settings.timeout_ms / 1000
        self._targets = {
            source: str(getattr(settings, f"{worker}_target")) for worker, source in WORKERS.items()
        }
        self._targets |= {RELEASES: settings.release_target, SCENARIOS: settings.scenario_target}
        self._channels = {
            name: open_channel(settings, target) for name, target in self._targets.items() if target
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Of what can be asked."""
        return tuple(self._targets)

    async def close(self) -> None:
        """Closes the channels."""
        for one in self._channels.values():
            await one.close()

    async def ask(self, name: str) -> Heard:
        """The answer as the page's rows, by target; nothing for an empty target."""
        if name not in self._channels:
            return Heard()
        target = self._targets[name]
        try:
            return Heard({target: await self._asked(name)(self._channels[name])})
        except grpc.aio.AioRpcError as error:
            return Heard(errors={target: why(error)})

    def _asked(self, name: str) -> Callable[[grpc.aio.Channel], Awaitable[object]]:
        return {RELEASES: self._releases, SCENARIOS: self._scenarios}.get(name, self._worker)

    async def _releases(self, opened: grpc.aio.Channel) -> Row:
        stub = release_pb2_grpc.ReleaseServiceStub(opened)
        answer = await stub.ListReleases(release_pb2.ListReleasesRequest(), timeout=self._timeout_s)
        return {
            "generations": [_generation(one) for one in answer.generations],
            "arms": [_arm(one) for one in answer.releases],
        }

    async def _scenarios(self, opened: grpc.aio.Channel) -> list[Row]:
        stub = scenario_pb2_grpc.ScenarioServiceStub(opened)
        answer = await stub.ListScenarios(scenario_pb2.ListScenariosRequest(), timeout=self._timeout_s)
        return [scenario_row(one) for one in answer.scenarios]

    async def _worker(self, opened: grpc.aio.Channel) -> Row:
        stub = worker_pb2_grpc.WorkerServiceStub(opened)
        answer = await stub.GetWorkerStatus(worker_pb2.GetWorkerStatusRequest(), timeout=self._timeout_s)
        behind: dict[str, int] = {}
        for one in answer.partitions:
            behind[one.topic] = behind.get(one.topic, 0) + max(0, one.end - one.position)
        return {"state": answer.state, "partitions": len(answer.partitions), "behind": behind}


def why(error: grpc.aio.AioRpcError) -> str:
    """Of a call that failed, in few words."""
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return "nobody answers there"
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer in time"
    return f"{error.code().name}: {error.details()}"[:300]


def scenario_row(one: scenario_pb2.ScenarioStatus) -> Row:
    """Of the list of switches."""
    return {
        "name": one.name,
        "description": one.description,
        "on": one.on,
        "since_ms": to_us(one.since) // 1000 if one.on else None,
    }


def _generation(one: release_pb2.Generation) -> Row:
    return {
        "generation": one.generation,
        "parent": one.parent_generation,
        "state": one.life.state,
        "held": one.life.held,
        "registered_ms": to_us(one.registered_at) // 1000,
        "rows_from": one.base.sequence,
    }


def _arm(one: Any) -> Row:
    lineage = one.lineage
    pinned = one.pinned_sequence if one.HasField("pinned_sequence") else None
    return {
        "arm": one.arm,
        "generation": lineage.generation,
        "policy": lineage.policy,
        "pinned": pinned,
        "state": _RELEASE_STATES.get(one.state, ""),
        "share": one.standing_share,
    }


_RELEASE_STATES = {1: "serving", 2: "shadow", 3: "retired"}
