"""Writes bases and tells release of them, aside from training; one at a time.

A base that cannot be written or registered yet is tried again with growing pauses, until a newer one takes
its place. The state that it is written from is let go as soon as it is written. Old
bases of this process are deleted when no release names them any more.
"""

from __future__ import annotations

import asyncio
import time

import grpc

from rec.model.v1 import model_pb2
from rec.v1 import release_pb2, release_pb2_grpc
from services.contract import model_store
from services.contract.errors import LoopError
from services.contract.model_state import Frozen
from services.contract.model_store import SavedBase
from services.contract.signature import Signer
from services.runtime.telemetry import counter, gauge, get_logger, histogram

log = get_logger(__name__)
KEEP_BASES = 6
_RPC_TIMEOUT_S = 10.0
_FIRST_PAUSE_S = 0.5
_SAVE_FAILURES = (OSError, LoopError)


class BaseKeeper:
    """``offer`` a state; ``run`` saves and registers it."""

    def __init__(
        self,
        root: str,
        channel: grpc.aio.Channel,
        *,
        partition: int,
        retry_max_s: float,
        signer: Signer | None = None,
    ) -> None:
        self._root = root
        self._signer = signer
        self._release = release_pb2_grpc.ReleaseServiceStub(channel)
        self._partition = partition
        self._retry_max_s = retry_max_s
        self._waiting: tuple[Frozen, int] | None = None
        self._wake = asyncio.Event()
        self._mine: list[SavedBase] = []
        self.registered_sequence = 0
        self._outcomes = counter("trainer_bases", "Bases by what became of them.", ["outcome"])
        self._seconds = histogram("trainer_base_save_seconds", "Writing of one base.")
        self._kept = gauge("trainer_base_rows_kept", "Rows that changed while the newest base was written.")

    def offer(self, state: Frozen, delta_offset: int) -> None:
        """A state that belongs to this object now, and the offset at which its chain goes on. Replaces one
        that waits."""
        if self._waiting is not None:
            self._waiting[0].close()
            self._outcomes.labels("replaced").inc()
        self._waiting = (state, delta_offset)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            offered, self._waiting = self._waiting, None
            if offered is not None:
                state, delta_offset = offered
                try:
                    await self._keep(state, delta_offset)
                finally:
                    state.close()

    async def _keep(self, state: Frozen, delta_offset: int) -> None:
        pause, saved = _FIRST_PAUSE_S, None
        while self._waiting is None:
            try:
                if saved is None:
                    saved = await self._save(state, delta_offset)
                await self._register(saved)
                self._outcomes.labels("registered").inc()
                await self._delete_old()
            except (*_SAVE_FAILURES, grpc.aio.AioRpcError) as error:
                self._outcomes.labels("failed").inc()
                log.warning("base not registered", sequence=state.head.sequence, error=repr(error)[:300])
                await asyncio.sleep(pause)
                pause = min(self._retry_max_s, pause * 2)
            else:
                return

    async def _save(self, state: Frozen, delta_offset: int) -> SavedBase:
        started = time.perf_counter()
        saved = await asyncio.to_thread(
            model_store.save_base,
            self._root,
            state,
            created_at_us=state.head.created_at_us,
            delta_partition=self._partition,
            delta_offset=delta_offset,
            signer=self._signer,
        )
        self._seconds.observe(time.perf_counter() - started)
        self._kept.set(state.rows_kept)
        state.close()
        return saved

    async def _register(self, saved: SavedBase) -> None:
        await self._release.RegisterBase(
            release_pb2.RegisterBaseRequest(
                lineage=model_pb2.Lineage(generation=saved.generation, policy=saved.policy),
                base=base_ref(saved),
            ),
            timeout=_RPC_TIMEOUT_S,
        )
        self.registered_sequence = saved.sequence
        if all(known.manifest_uri != saved.manifest_uri for known in self._mine):
            self._mine.append(saved)
        log.info("base registered", sequence=saved.sequence, uri=saved.manifest_uri)

    async def _delete_old(self) -> None:
        if len(self._mine) <= KEEP_BASES:
            return
        answer = await self._release.ListReleases(release_pb2.ListReleasesRequest(), timeout=_RPC_TIMEOUT_S)
        named = {release.base.manifest_uri for release in answer.releases}
        for old in self._mine[:-KEEP_BASES]:
            if old.manifest_uri not in named:
                await asyncio.to_thread(model_store.delete_base, old.manifest_uri)
                self._mine.remove(old)
                self._outcomes.labels("deleted").inc()


def base_ref(saved: SavedBase) -> model_pb2.BaseRef:
    """The reference that release keeps of a base."""
    return model_pb2.BaseRef(
        manifest_uri=saved.manifest_uri,
        manifest_digest=saved.manifest_digest,
        sequence=saved.sequence,
        chain_hash=saved.chain_hash,
        epoch=saved.epoch,
        delta_partition=saved.delta_partition,
        delta_offset=saved.delta_offset,
    )
