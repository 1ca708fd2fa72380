"""What release does by itself: reads what the arms serve, takes an arm back that is worse than its baseline,
keeps that baseline and, when told to, takes full models from the gate to everybody.

    samples --> window (served.py) --every look--> guard (guard.py) --rollback--> order (rollbacks.py)
                                               |--> promotion (promotion.py) --step--> life (lives.py)
                                               '--> baseline (baseline.py) --pin--> arm (registry.py)

The guard of an arm is on as long as there is a baseline arm with traffic, and the generation is not held.
Rows served before the newest rollback of a lineage are not held against it, nor for it; while an order has no
outcome, nothing is ordered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from rec.model.v1 import model_pb2
from services.contract import times, topics
from services.contract.errors import LoopError, Unavailable
from services.release import lives
from services.release.baseline import BaselineRules, kept
from services.release.decision import NOTHING, Decision
from services.release.gatekeeper import Gatekeeper
from services.release.guard import Guard, GuardVerdict
from services.release.promotion import NextStep, Promotion
from services.release.registry import ONLINE_ARM, Registry
from services.release.rollbacks import roll_back
from services.release.served import ServedRows, ServedSamples
from services.release.settings import Settings
from services.release.undone import Undone
from services.runtime.clock import WallClock
from services.runtime.kafka_consumer import LogReader
from services.runtime.telemetry import counter, gauge, get_logger

log = get_logger(__name__)
Decide = Callable[[Callable[[Registry], Decision], float], Coroutine[Any, Any, Decision]]
_POLL_MS = 200
_RETRY_S = 0.5
_TURN_S = 1.0


class SampleTail:
    """Feeds the window with samples from the end that the log has when it starts."""

    def __init__(
        self, reader: LogReader, window: ServedSamples, served: Callable[[ServedRows], None]
    ) -> None:
        self._reader = reader
        self._served = served
        self._window = window
        self._records = counter("release_samples", "Records of samples, by what became of them.", ["outcome"])
        self._told: dict[str, int] = {}

    async def run(self) -> None:
        """Until cancelled; waits while Kafka is away."""
        started = False
        while True:
            try:
                if not started:
                    partitions = await self._reader.partitions(topics.SAMPLES.name)
                    self._reader.assign(await self._reader.end_offsets(partitions))
                    started = True
                found = await self._reader.poll(timeout_ms=_POLL_MS)
            except Unavailable as error:
                log.warning("samples not readable", error=str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            for records in found.values():
                for record in records:
                    if (rows := self._window.add(record.value or b"")) is not None:
                        self._served(rows)
            for name, count in self._window.counts.items():
                self._records.labels(name).inc(count - self._told.get(name, 0))
                self._told[name] = count


class Steward:
    """``decide`` runs a decision over the registry and writes it."""

    def __init__(
        self,
        settings: Settings,
        window: ServedSamples,
        clock: WallClock,
        decide: Decide,
        gatekeeper: Gatekeeper,
    ) -> None:
        self._gatekeeper = gatekeeper
        self.promotion = Promotion(settings.promotion, settings.test)
        self._settings = settings
        self._window = window
        self._clock = clock
        self._decide = decide
        self._baseline = BaselineRules(
            settings.baseline_arm,
            settings.baseline_share,
            int(settings.baseline_age_s * times.MICROS),
            int(settings.look_interval_s * times.MICROS),
        )
        self._age = gauge(
            "release_baseline_age_seconds", "Of the base that the baseline arm stands on; -1: none."
        )
        self._guards: dict[tuple[str, int], Guard] = {}
        self._looks = counter("release_guard_looks", "Windows judged, by decision.", ["arm", "decision"])
        self._figures = gauge("release_served", "What an arm served in the window.", ["arm", "figure"])
        self._told: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Looks until cancelled; a look that fails (Kafka away) is made again at its time."""
        while True:
            await asyncio.sleep(self._settings.look_interval_s)
            try:
                await self.look()
            except LoopError as error:
                log.warning("look failed", error=str(error))

    async def look(self) -> None:
        """Guards every arm that follows a lineage, takes the generation under way a step on, keeps the
        baseline."""
        self._tell(self._window.arms())
        # Others decide too: their turn is not taken without need, nor for long while Kafka is away.
        if self._settings.baseline_arm in self._window.arms():
            await self._decide(self._guarded, _TURN_S)
        try:
            if self._settings.auto_promote:
                await self._advance()
        finally:
            # A model that cannot be judged yet (Conflict) may stand at the gate for long.
            await self._decide(self._kept, _TURN_S)

    def _tell(self, arms: Sequence[str]) -> None:
        """What each arm in the window served; one that has left it says nothing, instead of its last."""
        figures = {
            (arm, name): value for arm in arms for name, value in self._window.whole(arm).figures().items()
        }
        for labels, value in figures.items():
            self._figures.labels(*labels).set(value)
        for gone in self._told - figures.keys():
            self._figures.remove(*gone)
        self._told = set(figures)

    def _kept(self, registry: Registry) -> Decision:
        found = kept(registry, self._baseline, self._clock.now_us())
        self._age.set(-1 if found.age_us is None else found.age_us / times.MICROS)
        return found.decision

    async def _advance(self) -> None:
        """One step of the generation under way."""
        due: list[tuple[NextStep, model_pb2.BaseRef]] = []

        def find(registry: Registry) -> Decision:
            step = self.promotion.look(registry, time.monotonic())
            if step is not None:
                due.append((step, registry.generation(step.generation).base))
            return NOTHING

        await self._decide(find, _TURN_S)
        for step, base in due:
            await self._decide(await self._made(step, base), _TURN_S)

    async def _made(self, due: NextStep, base: model_pb2.BaseRef) -> Callable[[Registry], Decision]:
        now_us = self._clock.now_us()
        if due.step is None:
            verdict = await self._gatekeeper.judge(base, ONLINE_ARM)
            return lambda registry: lives.gated(registry, due.generation, verdict, now_us)
        step, share = due.step, self._settings.promotion.candidate_share
        shares = {ONLINE_ARM: 1 - share, lives.CANDIDATE_ARM: share}
        return lambda registry: lives.stepped(
            registry, due.generation, step, now_us, shares=shares, reason="auto_promote", **due.evidence
        )

    def _guarded(self, registry: Registry) -> Decision:
        """At most one order a look: its outcome changes what the next one sees."""
        baseline_arm = self._settings.baseline_arm
        # Waiting for the turn may have taken the last of its rows out of the window.
        if baseline_arm not in self._window.arms():
            return NOTHING
        for release in registry.arms:
            if release.arm == baseline_arm or release.HasField("pinned_sequence"):
                continue
            if release.state != model_pb2.RELEASE_STATE_SERVING:
                continue
            if registry.life(release.lineage.generation).held:
                continue
            undone = Undone.of(registry, release.lineage)
            if undone.open_order:
                continue
            verdict = self._judge(release, undone)
            if verdict.decision == "rollback":
                return self._order(registry, release, undone, verdict)
        return NOTHING

    def _judge(self, release: model_pb2.Release, undone: Undone) -> GuardVerdict:
        generation = release.lineage.generation
        guard = self._guards.setdefault((release.arm, generation), Guard(self._settings.guard))
        # From the same moment on: clicks come at once, what was not clicked later, so the newest rows alone
        # are all clicks, of any arm.
        from_us = undone.since_us
        served = self._window.window(release.arm, generation, from_sequence=undone.since, from_us=from_us)
        verdict = guard.look(served, self._window.window(self._settings.baseline_arm, from_us=from_us))
        self._looks.labels(release.arm, verdict.decision).inc()
        return verdict

    def _order(
        self, registry: Registry, release: model_pb2.Release, undone: Undone, verdict: GuardVerdict
    ) -> Decision:
        now_us = self._clock.now_us()
        wish = undone.target(now_us, int(self._settings.rollback_s * times.MICROS))
        wish.reason = f"guard of arm {release.arm}"
        log.error("arm taken back", arm=release.arm, failed=verdict.evidence()["failed"])
        return roll_back(registry, release.lineage, wish, now_us, guard=verdict.evidence())
