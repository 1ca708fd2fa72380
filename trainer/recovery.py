"""Where an online trainer goes on: the newest base of its arm's lineage, and its own deltas behind it.

Order matters: fence and mark first (Publisher.start), then read up to the mark. What stands below it no older
writer can change, so the chain is continued where it ends and never forked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from rec.model.v1 import model_pb2
from services.contract import delta, model_state, model_store, topics
from services.contract.chain import Action, ModelSlot, Position
from services.contract.delta import Body, Header
from services.contract.errors import Conflict, InvalidInput, NotFound
from services.contract.model_state import ModelState
from services.contract.signature import Trusted
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.telemetry import get_logger
from trainer.log_end import read_to

log = get_logger(__name__)
_ASK_AGAIN_S = 0.5
Seen = Callable[[model_pb2.Release], object]
Take = Callable[[Header, Body, bytes], None]


@dataclass(frozen=True)
class Recovered:
    """A state that stands at the end of its chain, and the offset behind its last delta."""

    state: ModelState
    next_offset: int
    deltas: int


async def wait_for_release(
    reader: LogReader, arm: str, timeout_s: float, seen: Seen = lambda release: None
) -> model_pb2.Release:
    """The newest release of an arm; NotFound when none comes in time, Conflict when the arm is pinned.
    ``seen`` gets every record on the way, of any arm."""
    where = TopicPartition(topics.MODEL_RELEASES.name, 0)
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        found = await _newest_release(reader, where, arm, seen)
        if found is not None:
            if found.HasField("pinned_sequence"):
                raise Conflict(f"arm {arm} is pinned to sequence {found.pinned_sequence}: nothing to train")
            return found
        if asyncio.get_running_loop().time() > deadline:
            raise NotFound(f"no release of arm {arm} came within {timeout_s} s")
        await asyncio.sleep(_ASK_AGAIN_S)


async def _newest_release(
    reader: LogReader, where: TopicPartition, arm: str, seen: Seen
) -> model_pb2.Release | None:
    newest: model_pb2.Release | None = None
    start = (await reader.beginning_offsets([where]))[where]
    async for record in read_to(reader, where, start):
        if record.value:
            release = model_pb2.Release.FromString(record.value)
            seen(release)
            if record.key == arm.encode():
                newest = release
    return newest


def load_base(release: model_pb2.Release, root: str, *, trusted: Trusted | None = None) -> ModelState:
    """The state of a release's base, verified (blocking), whatever features it sees. Its lineage is the
    release's: at sequence 0 the number was given after the base was written."""
    base = release.base
    state, saved = model_store.load_base(
        base.manifest_uri, root=root, manifest_digest=base.manifest_digest, trusted=trusted
    )
    if (saved.sequence, saved.chain_hash) != (base.sequence, base.chain_hash):
        raise InvalidInput.one("base.sequence", saved.sequence, f"{base.sequence}, as released")
    state.generation, state.policy = release.lineage.generation, release.lineage.policy
    return state


async def replay_deltas(
    reader: LogReader, state: ModelState, where: TopicPartition, offset: int, mark: int
) -> Recovered:
    """Applies the lineage's own deltas from ``offset`` to the publisher's mark; Conflict when the chain is
    broken."""

    def take(header: Header, body: Body, delta_hash: bytes) -> None:
        model_state.apply(state, header, body, delta_hash)

    next_offset, applied = await follow(reader, state, where, offset, mark=mark, take=take)
    return Recovered(state, next_offset, applied)


async def follow(
    reader: LogReader, start: ModelState, where: TopicPartition, offset: int, *, mark: int, take: Take
) -> tuple[int, int]:
    """Gives the chain's deltas behind the place where ``start`` stands, up to the publisher's mark, to
    ``take`` (on a worker thread). The offset behind the last one, and how many; Conflict when the chain is
    broken."""
    slot = ModelSlot(start.generation, start.policy, start.shape.model_hash)
    slot.base_loaded(Position(start.sequence, start.epoch, start.chain_hash, offset))
    applied = 0
    async for record in read_to(reader, where, offset, end=mark):
        if record.value is None:
            continue
        try:
            sealed = delta.unseal(record.value)
            verdict = slot.offer(sealed.header, sealed.hash, record.offset)
            if verdict.action is Action.APPLY:
                body = await asyncio.to_thread(delta.open_body, sealed)
                await asyncio.to_thread(take, sealed.header, body, sealed.hash)
                slot.applied(sealed.header, sealed.hash, record.offset)
                applied += 1
        except delta.BadDelta as error:
            verdict = slot.offer_bad(error.reason, record.offset)
        if verdict.action not in (Action.APPLY, Action.IGNORE):
            log.warning("delta not of this chain", reason=verdict.reason, offset=record.offset)
    if slot.counts["gap"]:
        # Only this trainer writes here: a hole in its own log cannot be repaired by reading it again.
        raise Conflict(f"the chain of {slot.lineage} is broken behind sequence {slot.position.sequence}")
    return slot.position.next_offset, applied
