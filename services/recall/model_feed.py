"""Keeps the vectors at the newest state of the arm's lineage: base, then deltas, by the rules of the chain.

    release says (lineage, base) -> base read aside -> deltas read to the end of the log -> swapped in ->
    followed

The rules (which delta is applied, refused, or leads to a repair) are contract.chain's; here are only their
consequences: apply on the vectors' thread, seek back in the log, read a newer base. Decoding and hashing
happen on another thread, so a search waits only for the rows to be written.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from dataclasses import dataclass

from rec.model.v1.model_pb2 import BaseRef, Release
from services.contract import delta, topics
from services.contract.chain import Action, ModelSlot, Position, SlotState, Verdict
from services.contract.errors import LoopError, NotFound
from services.contract.signature import Trusted
from services.contract.trace_ids import span_of
from services.recall import list_build, metrics
from services.recall.base_loader import load_base
from services.recall.release_feed import ReleaseFeed
from services.recall.vectors import VectorModel, VectorSource, VectorVersion
from services.runtime.clock import WallClock
from services.runtime.kafka_consumer import ConsumerRecord, LogReader, TopicPartition
from services.runtime.traced_deltas import applied_deltas

_POLL_MS = 200
_MAX_RECORDS = 20
_RETRY_S = 1.0
# Reading the log again costs up to one base interval of deltas.
_MAX_PATIENCE_S = 30.0
_REPAIRING = (SlotState.RESYNC_LOG, SlotState.RESYNC_BASE)


@dataclass
class _Followed:
    """One lineage being followed: the rules' state, the vectors, and where its deltas are."""

    slot: ModelSlot
    model: VectorModel
    where: TopicPartition
    # The log's end when following began: before it has been reached the model is not served.
    end: int
    # How long a broken chain waits for a newer base before the log is read again.
    patience_s: float = _RETRY_S


def position_of(base: BaseRef) -> Position:
    """Where in the chain a base stands."""
    return Position(base.sequence, base.epoch, base.chain_hash, base.delta_offset)


class ModelFeed:
    """One task; ``run`` it with a started reader."""

    def __init__(
        self,
        reader: LogReader,
        releases: ReleaseFeed,
        source: VectorSource,
        *,
        store_uri: str,
        trusted: Trusted | None = None,
        stale_s: float,
        lists_from_items: int,
        wall: WallClock,
    ) -> None:
        self._reader = reader
        self._releases = releases
        self._source = source
        self._store_uri = store_uri
        self._trusted = trusted
        self._stale_s = stale_s
        self._lists_from_items = lists_from_items
        self._wall = wall
        self._traces = applied_deltas()
        self._followed: _Followed | None = None
        self._repairing_since: float | None = None
        self._open_at = 0.0
        self.loaded = asyncio.Event()

    async def run(self) -> None:
        """Follows until cancelled. Faults of the store or of Kafka are counted, logged and tried again."""
        while True:
            try:
                await self._step()
            except LoopError as error:
                metrics.READ_ERRORS.labels(topics.MODEL_DELTAS.name).inc()
                metrics.log.error("vectors do not advance", error=repr(error))
                await asyncio.sleep(_RETRY_S)
            self._watch_repair()

    async def _step(self) -> None:
        release = self._releases.newest
        followed = self._followed
        if release is None:
            await self._wait_for_release()
        elif followed is None:
            self._followed = await self._open(release)
        elif _moved(followed.slot, release) and time.monotonic() >= self._open_at:
            await self._move(release)
        elif followed.slot.state is SlotState.PINNED:
            await self._serve_when_caught_up(followed)
            await self._wait_for_release(_RETRY_S)
        elif followed.slot.state is SlotState.RESYNC_BASE:
            await self._repair(followed, release)
        else:
            await self._read(followed)

    async def _move(self, release: Release) -> None:
        """Follows another lineage; while that one cannot be opened, the present one is followed on."""
        try:
            self._followed = await self._open(release)
        except LoopError as error:
            self._open_at = time.monotonic() + _RETRY_S
            metrics.log.error("release cannot be followed", revision=release.revision, error=repr(error))

    async def _wait_for_release(self, timeout_s: float | None = None) -> bool:
        """True when a decision came, False when none came in time."""
        self._releases.changed.clear()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._releases.changed.wait()
        except TimeoutError:
            return False

    async def _open(self, release: Release) -> _Followed:
        """Reads the base aside; the model served so far stays until the new one has caught up."""
        lineage = release.lineage
        pinned = release.pinned_sequence if release.HasField("pinned_sequence") else None
        slot = ModelSlot(lineage.generation, lineage.policy, pinned_sequence=pinned)
        where = TopicPartition(topics.MODEL_DELTAS.name, release.base.delta_partition)
        model = await self._load(release.base, slot)
        slot.base_loaded(position_of(release.base))
        end = (await self._reader.end_offsets([where]))[where]
        self._reader.assign({where: slot.position.next_offset})
        return _Followed(slot, model, where, end)

    async def _load(self, base: BaseRef, slot: ModelSlot) -> VectorModel:
        began = time.monotonic()
        try:
            model, slot.model_hash = await asyncio.to_thread(
                load_base, self._store_uri, base, slot.lineage, self._wall, trusted=self._trusted
            )
        except LoopError:
            metrics.BASES.labels("failed").inc()
            raise
        metrics.BASES.labels("loaded").inc()
        if model.items.size >= self._lists_from_items:
            await asyncio.to_thread(list_build.build, model)
            metrics.LISTINGS.labels("base").inc()
        metrics.log.info(
            "base loaded",
            generation=slot.lineage[0],
            sequence=base.sequence,
            users=model.users.size,
            items=model.items.size,
            seconds=round(time.monotonic() - began, 3),
        )
        return model

    async def _read(self, followed: _Followed) -> None:
        try:
            found = await self._reader.poll(_POLL_MS, _MAX_RECORDS)
        except NotFound:
            followed.slot.log_truncated()
            metrics.RESYNCS.labels("base").inc()
            return
        for record in found.get(followed.where, ()):
            if record.value is None:  # the mark of a trainer that has started
                continue
            verdict = await self._take(followed, record)
            if verdict.action is Action.RESYNC_LOG and verdict.seek_offset is not None:
                metrics.RESYNCS.labels("log").inc()
                self._reader.seek(followed.where, verdict.seek_offset)
                return
            if verdict.action is Action.RESYNC_BASE:
                metrics.RESYNCS.labels("base").inc()
                return
        await self._serve_when_caught_up(followed)
        if not found and followed.slot.state is SlotState.RESYNC_LOG and await self._at_end(followed):
            followed.slot.caught_up()
            if followed.slot.state is SlotState.RESYNC_LOG:
                # Read to its end again, and the hole is still there: what is missing is not in this log.
                followed.slot.log_truncated()
                metrics.RESYNCS.labels("base").inc()

    async def _take(self, followed: _Followed, record: ConsumerRecord) -> Verdict:
        """One record of the log: judged, and applied when the rules say so."""
        slot = followed.slot
        try:
            sealed = await asyncio.to_thread(delta.unseal, record.value)
            verdict = slot.offer(sealed.header, sealed.hash, record.offset)
            if verdict.action is Action.APPLY:
                body = await asyncio.to_thread(delta.open_body, sealed)
                traces, span = self._traces, span_of(record.headers)
                with nullcontext() if traces is None else traces.applying(sealed.header, span):
                    await self._apply(followed, sealed.header, body)
                slot.applied(sealed.header, sealed.hash, record.offset)
        except delta.BadDelta as error:
            verdict = slot.offer_bad(error.reason, record.offset)
            metrics.log.error("bad delta", offset=record.offset, reason=error.reason, error=str(error))
        metrics.VERDICTS.labels(verdict.reason).inc()
        return verdict

    async def _apply(self, followed: _Followed, header: delta.Header, body: delta.Body) -> None:
        version = VectorVersion(
            header.generation, header.policy, header.sequence, header.created_at_us, self._wall.now_us()
        )
        model = followed.model
        nearest = await asyncio.to_thread(model.nearest, body.tables) if model.has_lists else ()
        rows = await self._source.do(lambda: model.apply(body.tables, version, nearest))
        metrics.DELTA_ROWS.inc(rows)
        if self._source.serves(followed.model):
            _show(version)

    async def _serve_when_caught_up(self, followed: _Followed) -> None:
        if self._source.serves(followed.model):
            return
        pinned = followed.slot.state is SlotState.PINNED
        if pinned or await self._reader.position(followed.where) >= followed.end:
            self._source.swap(followed.model)
            _show(followed.model.version)
            self.loaded.set()
            metrics.log.info("vectors served", version=str(followed.model.version))

    async def _repair(self, followed: _Followed, release: Release) -> None:
        """The log did not help: the release's base if it is newer than the state, else the log again."""
        position = position_of(release.base)
        if followed.slot.wants_base(position):
            model = await self._load(release.base, followed.slot)
            followed.slot.base_loaded(position)
            self._reader.assign({followed.where: position.next_offset})
            served = self._source.serves(followed.model)
            followed.model, followed.patience_s = model, _RETRY_S
            if served:
                self._source.swap(model)
            return
        if await self._wait_for_release(followed.patience_s):
            return
        followed.patience_s = min(2 * followed.patience_s, _MAX_PATIENCE_S)
        verdict = followed.slot.retry_log()
        if verdict is not None and verdict.seek_offset is not None:
            metrics.RESYNCS.labels("log").inc()
            self._reader.seek(followed.where, verdict.seek_offset)

    async def _at_end(self, followed: _Followed) -> bool:
        end = (await self._reader.end_offsets([followed.where]))[followed.where]
        return await self._reader.position(followed.where) >= end

    def _watch_repair(self) -> None:
        """Names the vectors stale when a repair takes long."""
        repairing = self._followed is not None and self._followed.slot.state in _REPAIRING
        if not repairing:
            self._repairing_since = None
        elif self._repairing_since is None:
            self._repairing_since = time.monotonic()
        since = self._repairing_since
        self._source.stale = since is not None and time.monotonic() - since > self._stale_s


def _moved(slot: ModelSlot, release: Release) -> bool:
    pinned = release.pinned_sequence if release.HasField("pinned_sequence") else None
    lineage = (release.lineage.generation, release.lineage.policy)
    return (lineage, pinned) != (slot.lineage, slot.pinned_sequence)


def _show(version: VectorVersion) -> None:
    metrics.GENERATION.set(version.generation)
    metrics.SEQUENCE.set(version.sequence)
    metrics.CREATED.set(version.created_us / 1e6)
