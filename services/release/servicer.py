"""ReleaseService: one decision at a time, answered when it stands in the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import grpc

from rec.model.v1 import model_pb2
from rec.v1 import release_pb2, release_pb2_grpc
from services.contract.errors import Conflict, InvalidInput, Unavailable
from services.contract.topics import delta_partition
from services.release import lives
from services.release.decision import NOTHING, Decision
from services.release.gatekeeper import Gatekeeper
from services.release.manifests import Manifests
from services.release.registry import ONLINE_ARM, Registry
from services.release.release_log import ReleaseLog
from services.release.rollbacks import report_rollback, roll_back
from services.release.served import ServedSamples
from services.release.states import Step
from services.runtime.clock import WallClock
from services.runtime.grpc_client import remaining_s
from services.runtime.telemetry import counter, gauge

# A caller without a deadline waits no longer than this for Kafka to come back.
OPEN_TIMEOUT_S = 10.0
_STEPS = {
    release_pb2.GENERATION_STEP_SHADOW: Step.SHADOWED,
    release_pb2.GENERATION_STEP_COMPARE: Step.COMPARED,
    release_pb2.GENERATION_STEP_PROMOTE: Step.PROMOTED,
    release_pb2.GENERATION_STEP_REJECT: Step.REJECTED,
    release_pb2.GENERATION_STEP_ROLL_BACK: Step.ROLLED_BACK,
}


class ReleaseServicer(release_pb2_grpc.ReleaseServiceServicer):
    """``on_fenced`` is told when another release has taken the log over: this process must end."""

    def __init__(
        self,
        log: ReleaseLog,
        clock: WallClock,
        on_fenced: Callable[[Exception], None],
        *,
        manifests: Manifests,
        window: ServedSamples,
        gatekeeper: Gatekeeper,
    ) -> None:
        self._gatekeeper = gatekeeper
        self._manifests = manifests
        self._window = window
        self._log = log
        self._clock = clock
        self._on_fenced = on_fenced
        # One writer, one decision at a time: each is decided on a state that the log holds.
        self._turn = asyncio.Lock()
        self._decisions = counter("release_decisions", "Decisions written.", ["decision"])
        self._repeats = counter("release_repeats", "Wishes that were fulfilled already.")
        self._revision = gauge("release_revision", "Revision of the newest record.")

    async def RegisterGeneration(
        self, request: release_pb2.RegisterGenerationRequest, context: grpc.aio.ServicerContext
    ) -> release_pb2.RegisterGenerationResponse:
        """Numbers a full model; the same manifest digest gets the same number."""
        await self._manifests.check_generation(request.manifest_uri, request.manifest_digest)
        async with self._turn:
            registry = await self._opened(remaining_s(context, OPEN_TIMEOUT_S))
            delta_end = await self._log.delta_end(delta_partition(*registry.next_lineage()))
            decision = registry.register_generation(
                request.manifest_uri,
                request.manifest_digest,
                request.parent_generation,
                delta_end,
                self._clock.now_us(),
            )
            await self._write(decision)
        answer = decision.answer
        return release_pb2.RegisterGenerationResponse(generation=answer.lineage.generation, base=answer.base)

    async def RegisterBase(
        self, request: release_pb2.RegisterBaseRequest, context: grpc.aio.ServicerContext
    ) -> release_pb2.RegisterBaseResponse:
        """Records a newer full state of a lineage."""
        await self._manifests.check_base(request.lineage, request.base)
        decision = await self._decided(
            context, lambda registry, now_us: registry.register_base(request.lineage, request.base, now_us)
        )
        return release_pb2.RegisterBaseResponse(revision=decision.answer.revision)

    async def SetArm(
        self, request: release_pb2.SetArmRequest, context: grpc.aio.ServicerContext
    ) -> release_pb2.SetArmResponse:
        """Points an arm to a lineage or a sequence of one."""
        pinned = request.pinned_sequence if request.HasField("pinned_sequence") else None
        lineage = request.lineage
        async with self._turn:
            registry = await self._opened(remaining_s(context, OPEN_TIMEOUT_S))
            delta_end = await self._log.delta_end(delta_partition(lineage.generation, lineage.policy))
            decision = registry.set_arm(
                request.arm, lineage, pinned, request.state, self._clock.now_us(), delta_end=delta_end
            )
            await self._write(decision)
        return release_pb2.SetArmResponse(release=decision.answer)

    async def RollBack(
        self, request: release_pb2.RollBackRequest, context: grpc.aio.ServicerContext
    ) -> release_pb2.RollBackResponse:
        """Orders a lineage to be taken back."""
        wish = model_pb2.Rollback(reason=request.reason)
        if request.HasField("to_time"):
            wish.to_time.CopyFrom(request.to_time)
        elif request.HasField("to_sequence"):
            wish.to_sequence = request.to_sequence
        decision = await self._decided(
            context, lambda registry, now_us: roll_back(registry, request.lineage, wish, now_us)
        )
        return release_pb2.RollBackResponse(rollback=decision.answer.rollback)

    async def ReportRollback(
        self, request: release_pb2.ReportRollbackRequest, context: grpc.aio.ServicerContext
    ) -> release_pb2.ReportRollbackResponse:
        """Keeps what came of an order."""
        decision = await self._decided(
            context,
            lambda registry, now_us: report_rollback(registry, request.lineage, request.rollback, now_us),
        )
        return release_pb2.ReportRollbackResponse(revision=decision.answer.revision)

    async def ListReleases(
        self, request: release_pb2.ListReleasesRequest, context: grpc.aio.ServicerContext
    ) -> release_pb2.ListReleasesResponse:
        """All generations and arms."""
        async with self._turn:
            registry = await self._opened(remaining_s(context, OPEN_TIMEOUT_S))
            return release_pb2.ListReleasesResponse(
                generations=[_generation(registry, record) for record in registry.generations],
                releases=registry.arms,
                rollbacks=registry.rollbacks,
            )

    async def GateGeneration(
        self, request: release_pb2.GateGenerationRequest, context: grpc.aio.ServicerContext
    ) -> release_pb2.GateGenerationResponse:
        """Judges a full model on what the online arm served lately, and keeps the verdict."""
        async with self._turn:
            registry = await self._opened(remaining_s(context, OPEN_TIMEOUT_S))
            base = registry.generation(request.generation).base
        # Aside: seconds for a large model, in which others decide.
        verdict = await self._gatekeeper.judge(base, ONLINE_ARM)
        decision = await self._decided(
            context, lambda registry, now_us: lives.gated(registry, request.generation, verdict, now_us)
        )
        # A repeat has no event of its own; what was found this time is told all the same.
        said = decision.events[0].evidence_json if decision.events else json.dumps(verdict.evidence())
        return release_pb2.GateGenerationResponse(state=decision.answer.life.state, evidence_json=said)

    async def StepGeneration(
        self, request: release_pb2.StepGenerationRequest, context: grpc.aio.ServicerContext
    ) -> release_pb2.StepGenerationResponse:
        """Takes a generation one step on."""
        step = _STEPS.get(request.step)
        if step is None:
            raise InvalidInput.one(
                "step", request.step, ", ".join(sorted(str(one) for one in _STEPS.values()))
            )
        decision = await self._decided(
            context,
            lambda registry, now_us: lives.stepped(
                registry, request.generation, step, now_us, shares=request.shares, reason=request.reason
            ),
        )
        return release_pb2.StepGenerationResponse(state=decision.answer.life.state)

    async def HoldGeneration(
        self, request: release_pb2.HoldGenerationRequest, context: grpc.aio.ServicerContext
    ) -> release_pb2.HoldGenerationResponse:
        """Keeps a generation from promotion and guard, or lets it go."""
        decision = await self._decided(
            context,
            lambda registry, now_us: lives.hold(
                registry, request.generation, request.held, now_us, request.reason
            ),
        )
        return release_pb2.HoldGenerationResponse(state=decision.answer.life.state)

    async def GetServed(
        self, request: release_pb2.GetServedRequest, context: grpc.aio.ServicerContext
    ) -> release_pb2.GetServedResponse:
        """What each arm served in the window, judged by the labels that came: of whole requests alone."""
        arms = self._window.arms()
        return release_pb2.GetServedResponse(
            arms=[release_pb2.ServedArm(arm=arm, figures=self._window.whole(arm).figures()) for arm in arms]
        )

    async def decide(
        self, make: Callable[[Registry], Decision], timeout_s: float = OPEN_TIMEOUT_S
    ) -> Decision:
        """Runs a decision over the log's state and writes it, in its turn. Unavailable, Conflict, and what
        ``make`` raises."""
        async with self._turn:
            decision = make(await self._opened(timeout_s))
            await self._write(decision)
        return decision

    async def _decided(
        self, context: grpc.aio.ServicerContext, make: Callable[[Registry, int], Decision]
    ) -> Decision:
        now_us = self._clock.now_us()
        timeout_s = remaining_s(context, OPEN_TIMEOUT_S)
        return await self.decide(lambda registry: make(registry, now_us), timeout_s)

    async def _opened(self, timeout_s: float) -> Registry:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._log.opened()
        except TimeoutError as error:
            raise Unavailable("the release log could not be read: Kafka does not answer") from error
        except Conflict as error:
            self._on_fenced(error)
            raise

    async def _write(self, decision: Decision) -> None:
        if not decision.records:
            self._repeats.inc(decision is not NOTHING)
            return
        try:
            await self._log.write(decision)
        except Conflict as error:
            self._on_fenced(error)
            raise
        for event in decision.events:
            self._decisions.labels(event.decision).inc()
        self._revision.set(decision.events[-1].revision)


def _generation(registry: Registry, record: model_pb2.Release) -> release_pb2.Generation:
    number = record.lineage.generation
    life = registry.life(number)
    return release_pb2.Generation(
        generation=number,
        parent_generation=record.parent_generation,
        base=record.base,
        registered_at=record.decided_at,
        life=model_pb2.Life(state=str(lives.state_of(registry, number)), shares=life.shares, held=life.held),
    )
