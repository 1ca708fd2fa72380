"""Follows one lineage for one arm: loads its base aside, catches up aside, then is served and goes on.

    load (verified, retried) -> catch up from the log -> warm up -> served -> follow ... -> pinned: done

The rules are contract.chain's ModelSlot; this file does what its verdicts say. Until the model is served,
jobs run on a worker thread; from then on on the scoring thread, each between two requests. A base that
replaces a served state is built aside as well and swapped in by one reference.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import TypeVar

from rec.model.v1 import model_pb2
from services.contract import delta
from services.contract.chain import Action, ModelSlot, SlotState, Verdict
from services.contract.errors import LoopError, NotFound, Unavailable
from services.contract.times import MICROS
from services.ranking.applied_log import KEEP
from services.ranking.arm_model import ArmModel
from services.ranking.base_loader import position_of
from services.ranking.delta_feed import DeltaFeed, FeedRecord
from services.ranking.follower_tools import Applied, Tools
from services.runtime.telemetry import get_logger

log = get_logger(__name__)
T = TypeVar("T")
# Longest pause between two readings of a log that has not helped; bases come every few minutes.
MAX_REREAD_S = 60.0


class Follower:
    """One arm on one lineage, followed or pinned. ``model`` is None until the first base is loaded."""

    def __init__(self, release: model_pb2.Release, tools: Tools) -> None:
        self.release = release
        self.arm = release.arm
        self.model: ArmModel | None = None
        self.served = False
        # Set when the model is served, or a first try has failed: nobody waits for a broken arm.
        self.settled = asyncio.Event()
        pinned = release.pinned_sequence if release.HasField("pinned_sequence") else None
        self.slot = ModelSlot(release.lineage.generation, release.lineage.policy, pinned_sequence=pinned)
        self._tools = tools
        self._base = release.base
        self._new_base = asyncio.Event()
        self._feed: DeltaFeed | None = None
        self._held: deque[Applied] = deque(maxlen=KEEP)
        self._next_base_s = self._next_reread_s = self._reread_s = 0.0

    def same_wish(self, release: model_pb2.Release) -> bool:
        """Whether a release asks for the same lineage and pin as this follower's."""
        mine = self.release
        return (mine.lineage, mine.HasField("pinned_sequence"), mine.pinned_sequence) == (
            release.lineage,
            release.HasField("pinned_sequence"),
            release.pinned_sequence,
        )

    def offer_base(self, base: model_pb2.BaseRef) -> None:
        """A base from a newer release of the same wish; it is loaded only when the slot needs one."""
        self._base = base
        self._new_base.set()

    async def run(self) -> None:
        """Follows until pinned or cancelled."""
        try:
            while not await self._load(self._base):
                await self._pause()
            while self.slot.state is not SlotState.PINNED:
                await self._mend()
                await self._turn()
            self._serve()
        finally:
            if self._feed is not None:
                await self._feed.stop()

    async def _pause(self) -> None:
        """Waits for another base, at most ``retry_s``."""
        self._new_base.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._new_base.wait(), self._tools.retry_s)

    async def _mend(self) -> None:
        """While only a base helps: loads one that does, or reads the log once more, ever more seldom."""
        if self.slot.state is not SlotState.RESYNC_BASE:
            return
        now = time.monotonic()
        if self.slot.wants_base(position_of(self._base)) and now >= self._next_base_s:
            self._next_base_s = now + self._tools.retry_s
            if await self._load(self._base):
                return
        if now >= self._next_reread_s and (verdict := self.slot.retry_log()) is not None:
            self._reread_after(2 * self._reread_s)
            self._obey(verdict)

    def _reread_after(self, seconds: float) -> None:
        # Behind a hole stands all that was published since: too much to read again and again.
        self._reread_s = min(seconds, MAX_REREAD_S)
        self._next_reread_s = time.monotonic() + self._reread_s

    async def _turn(self) -> None:
        """One poll and what follows from it."""
        try:
            feed = await self._opened()
            records = await feed.poll()
            # Asked only where the answer matters: before serving, and to end a resync.
            asks = not self.served or self.slot.state is SlotState.RESYNC_LOG
            at_end = asks and not records and await feed.at_end()
        except NotFound as error:
            log.error("log truncated", arm=self.arm, error=str(error))
            self._obey(self.slot.log_truncated())
            await self._pause()
            return
        except Unavailable as error:
            self._tools.metrics.feed_failures.labels(self.arm).inc()
            log.warning("deltas not readable", arm=self.arm, error=str(error))
            await asyncio.sleep(self._tools.retry_s)
            return
        for record in records:
            if not self._obey(await self._judge(record)):
                return
            if self.slot.state is SlotState.PINNED:
                return
        if at_end:
            self.slot.caught_up()
            self._serve()

    async def _opened(self) -> DeltaFeed:
        if self._feed is None:
            feed = self._tools.open_feed(self.arm)
            await feed.start(self._base.delta_partition, self.slot.position.next_offset)
            self._feed = feed
        return self._feed

    async def _judge(self, record: FeedRecord) -> Verdict:
        """The slot's verdict; on APPLY the delta has been applied."""
        try:
            sealed = await asyncio.to_thread(delta.unseal, record.value)
            verdict = self.slot.offer(sealed.header, sealed.hash, record.offset)
            if verdict.action is Action.APPLY:
                body = await asyncio.to_thread(delta.open_body, sealed)
        except delta.BadDelta as error:
            verdict = self.slot.offer_bad(error.reason, record.offset)
            if verdict.action is Action.REFUSE:
                self._tools.on_bad(record, self._base.delta_partition, error.reason)
        else:
            if verdict.action is Action.APPLY:
                await self._apply(sealed, body, record)
        self._tools.metrics.verdicts.labels(self.arm, verdict.reason).inc()
        if verdict.action not in (Action.APPLY, Action.IGNORE):
            log.warning("delta refused", arm=self.arm, reason=verdict.reason, offset=record.offset)
        return verdict

    async def _apply(self, sealed: delta.Sealed, body: delta.Body, record: FeedRecord) -> None:
        model = self._loaded()
        clock, seconds = self._tools.clock, self._tools.metrics.apply_seconds.labels(self.arm)

        def job() -> None:
            with seconds.time():
                model.apply(sealed.header, body, sealed.hash, clock.now_us())

        traces = self._tools.traces
        with nullcontext() if traces is None else traces.applying(sealed.header, record.span, arm=self.arm):
            await self._exclusively(job)
        self.slot.applied(sealed.header, sealed.hash, record.offset)
        self._reread_s = 0.0
        header = sealed.header
        # What is caught up aside was waited for by nobody.
        if self.served and record.appended_us:
            age_s = (model.applied_us - record.appended_us) / MICROS
            self._tools.metrics.delta_seconds.labels(self.arm).observe(age_s)
        self._tell(
            Applied(model.version(), header.created_at_us, body.rows, len(record.value), header.barrier_ids)
        )

    def _obey(self, verdict: Verdict) -> bool:
        """Does what a verdict says; False when the rest of what was polled must be dropped."""
        if verdict.action is Action.RESYNC_LOG:
            self._tools.metrics.resyncs.labels(self.arm, "log").inc()
            if self._feed is not None and verdict.seek_offset is not None:
                self._feed.seek(verdict.seek_offset)
            return False
        if verdict.action is Action.RESYNC_BASE:
            self._tools.metrics.resyncs.labels(self.arm, "base").inc()
            self._reread_after(max(self._reread_s, self._tools.retry_s))
            # A whole state that is behind is better than none; answers say so until it is repaired.
            if self._tools.unserved(self.arm):
                self._serve()
        return True

    async def _load(self, base: model_pb2.BaseRef) -> bool:
        metrics, throttle = self._tools.metrics, self._tools.throttle(self.release)
        try:
            state, features = await asyncio.to_thread(self._tools.load_base, self.release, base, throttle)
            model = ArmModel(self.arm, state, features, self._tools.clock.now_us())
            await asyncio.to_thread(model.warm_up)
        except (LoopError, OSError) as error:
            metrics.base_failures.labels(self.arm, type(error).__name__).inc()
            log.error("base not loaded", arm=self.arm, uri=base.manifest_uri, error=str(error))
            self.settled.set()
            return False
        finally:
            # A thread cannot be cancelled; it would go on for nobody, and a process that ends wait for it.
            throttle.stop()
        self.slot.model_hash = state.shape.model_hash
        self.slot.base_loaded(position_of(base))
        self._reread_s = 0.0
        self.model = model
        if self._feed is not None:
            self._feed.seek(base.delta_offset)
        metrics.bases.labels(self.arm).inc()
        log.info("base loaded", arm=self.arm, sequence=base.sequence, rows=state.rows)
        if self.served:
            self._tools.on_served(self)
        self._tell(Applied(model.version(), state.created_at_us, state.rows, 0))
        return True

    def _serve(self) -> None:
        """The first time: hands the model over, then tells what it holds."""
        if self.served:
            return
        # Nothing awaits between the swap and the telling: from here on jobs go to the scoring thread.
        self.served = True
        model = self._loaded()
        model.applied_us = self._tools.clock.now_us()
        self._tools.on_served(self)
        while self._held:
            self._tools.on_applied(self, self._held.popleft())
        self.settled.set()

    def _tell(self, applied: Applied) -> None:
        if self.served:
            self._tools.on_applied(self, applied)
        else:
            self._held.append(applied)

    async def _exclusively(self, job: Callable[[], T]) -> T:
        if self.served:
            return await self._tools.scorer.between_requests(job)
        return await asyncio.to_thread(job)

    def _loaded(self) -> ArmModel:
        if self.model is None:
            raise Unavailable(f"arm {self.arm} has no model yet")
        return self.model
