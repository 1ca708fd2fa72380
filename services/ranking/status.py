"""What an arm's slot says of itself; the digest of its whole state is made on demand.

The state is copied on the scoring thread (some ms) and digested on a worker, and a digest once made is kept
for its place in the chain: asking often must not stall the scoring.
"""

from __future__ import annotations

import asyncio

from rec.v1 import ranking_pb2
from services.contract import model_state, times
from services.contract.chain import SlotState
from services.ranking.arm_model import ArmModel
from services.ranking.follower import Follower
from services.ranking.scorer import Scorer


class StatusDesk:
    """Makes ArmStatus."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._digests: dict[str, tuple[bytes, bytes]] = {}
        self._turn = asyncio.Lock()

    async def of(self, follower: Follower) -> ranking_pb2.ArmStatus:
        """The status of one arm; its model, times, hash and digest are of one version."""
        if follower.model is None or not follower.served:
            status = ranking_pb2.ArmStatus(arm=follower.arm, slot_state=SlotState.LOADING.value)
        else:
            status = await self._of_model(follower.model)
            status.slot_state = follower.slot.state.value
        status.refused.update(follower.slot.refused)
        return status

    async def _of_model(self, model: ArmModel) -> ranking_pb2.ArmStatus:
        # One copy of a state at a time, however many ask.
        async with self._turn:
            status, copied = await self._scorer.between_requests(lambda: self._look(model))
            if copied is not None:
                digest = await asyncio.to_thread(model_state.digest, copied)
                self._digests[model.arm] = (status.chain_hash, digest)
                status.state_digest = digest
        return status

    def _look(self, model: ArmModel) -> tuple[ranking_pb2.ArmStatus, model_state.ModelState | None]:
        state = model.state
        status = ranking_pb2.ArmStatus(
            arm=model.arm,
            model=model.version(),
            applied_at=times.from_us(model.applied_us),
            created_at=times.from_us(state.created_at_us),
            chain_hash=state.chain_hash,
            rows=state.rows,
        )
        chain_hash, digest = self._digests.get(model.arm, (b"", b""))
        if chain_hash == state.chain_hash:
            status.state_digest = digest
            return status, None
        return status, state.copy()
