"""Carries an order of release out: takes a lineage back before anything of it is trained on.

    fenced -> newest base at or below the target, on this very chain -> its deltas (rewind.py) -> the
    difference is published -> release is told -> training goes on behind the samples that were undone

Nothing is remembered but what stands in the log: killed anywhere, the next start finds either the order
without its delta, and does it all again, or the delta that names the order, and only tells release. No base
can come between that delta and the report, since a line keeps bases only after it was opened.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import grpc

from rec.model.v1 import model_pb2
from rec.v1 import release_pb2, release_pb2_grpc
from services.contract import delta, model_store, times
from services.contract.delta_wire import rollback_proto
from services.contract.errors import LoopError
from services.contract.signature import Trusted
from services.runtime.clock import WallClock
from services.runtime.kafka_consumer import LogReader
from services.runtime.telemetry import counter, get_logger, histogram
from trainer import recovery
from trainer.bases import base_ref
from trainer.log_end import read_to
from trainer.orders import LineageId, Orders
from trainer.publisher import Publisher
from trainer.recovery import Recovered
from trainer.rewind import Rewind

log = get_logger(__name__)
_RPC_TIMEOUT_S = 5.0
_RETRY_S = 0.2


@dataclass(frozen=True)
class Store:
    """Where bases are, and which are trusted."""

    root: str
    trusted: Trusted | None


class TakingBack:
    """For one lineage whose publisher has been started: nobody else writes to it."""

    def __init__(
        self,
        lineage: LineageId,
        reader: LogReader,
        publisher: Publisher,
        store: Store,
        channel: grpc.aio.Channel,
    ) -> None:
        self._lineage = lineage
        self._lineage_proto = model_pb2.Lineage(generation=lineage[0], policy=lineage[1])
        self._reader = reader
        self._publisher = publisher
        self._store = store
        self._release = release_pb2_grpc.ReleaseServiceStub(channel)
        self._clock = WallClock()
        self._outcomes = counter(
            "trainer_rollbacks", "Orders to take a lineage back, by outcome.", ["outcome"]
        )
        self._seconds = histogram(
            "trainer_rollback_seconds",
            "From the order seen to the difference published, or told that none is.",
        )

    async def carry_out(self, order: model_pb2.Rollback, orders: Orders, max_ids: int) -> Recovered | None:
        """The restored state at the end of its chain. None when there is nothing to restore from, or it was
        done before: release has been told, and the line is opened as ever."""
        with self._seconds.time():
            rewind = await self._rewound(order, orders)
            if rewind is None or rewind.carried is not None or not rewind.undone:
                await self._tell(_outcome(order, rewind), orders)
                return None
            restored, rows, offset = rewind.state.sequence, 0, 0
            for plan in rewind.plans(self._clock.now_us(), max_ids):
                offset = await self._publisher.publish(plan)
                rows += plan.rows
        log.info(
            "lineage taken back", lineage=self._lineage, restored=restored, sequence=plan.header.sequence
        )
        rewind.carried = (plan.header, rows)
        await self._tell(_outcome(order, rewind), orders)
        return Recovered(rewind.state, offset + 1, rewind.undone)

    async def _rewound(self, order: model_pb2.Rollback, orders: Orders) -> Rewind | None:
        """Through the whole log, from the newest base that reaches far enough back; None when none does."""
        for base in await self._candidates(order, orders):
            release = model_pb2.Release(lineage=self._lineage_proto, base=base)
            try:
                state = await asyncio.to_thread(
                    recovery.load_base, release, self._store.root, trusted=self._store.trusted
                )
                rewind = Rewind(state, order)
                where, mark = self._publisher.where, self._publisher.mark
                await recovery.follow(
                    self._reader, state, where, base.delta_offset, mark=mark, take=rewind.take
                )
            except (LoopError, OSError) as error:
                log.warning("base does not reach back", uri=base.manifest_uri, error=str(error))
            else:
                return rewind
        return None

    async def _candidates(self, order: model_pb2.Rollback, orders: Orders) -> list[model_pb2.BaseRef]:
        found = []
        for uri in await asyncio.to_thread(model_store.list_bases, self._store.root, *self._lineage):
            try:
                saved = await asyncio.to_thread(model_store.read_manifest, uri, trusted=self._store.trusted)
            except LoopError as error:
                log.warning("base not usable", uri=uri, error=str(error))
                continue
            if order.HasField("to_time"):
                reaches = int(saved.manifest["created_at_us"]) <= times.to_us(order.to_time)
            else:
                reaches = saved.sequence <= order.to_sequence
            if reaches and await self._on_chain(base_ref(saved)):
                found.append(base_ref(saved))
                break
        first = orders.first_base(self._lineage)
        return [*found, first] if first is not None else found

    async def _on_chain(self, base: model_pb2.BaseRef) -> bool:
        """Whether the log holds the delta that the base ends with: stores outlive logs."""
        before = base.delta_offset - 1
        try:
            async for record in read_to(self._reader, self._publisher.where, before, end=base.delta_offset):
                sealed = delta.unseal(record.value or b"")
                return bool(record.offset == before and sealed.hash == base.chain_hash)
        except LoopError:
            pass
        return False

    async def _tell(self, outcome: model_pb2.Rollback, orders: Orders) -> None:
        """Until release has it: bases and new orders wait for that."""
        request = release_pb2.ReportRollbackRequest(lineage=self._lineage_proto, rollback=outcome)
        told = False
        while not told:
            try:
                await self._release.ReportRollback(request, timeout=_RPC_TIMEOUT_S)
                told = True
            except grpc.aio.AioRpcError as error:
                log.warning("release not told of the rollback", error=error.details())
                await asyncio.sleep(_RETRY_S)
        orders.take(model_pb2.Release(lineage=self._lineage_proto, rollback=outcome))
        self._outcomes.labels("failed" if outcome.error else "done").inc()


def _outcome(order: model_pb2.Rollback, rewind: Rewind | None) -> model_pb2.Rollback:
    outcome = model_pb2.Rollback()
    outcome.CopyFrom(order)
    if rewind is None:
        outcome.error = "no base in the store and no log reaches back to the target"
    elif rewind.carried is None:
        outcome.error = f"nothing to undo: the lineage ends at sequence {rewind.state.sequence}"
    else:
        header, outcome.rows = rewind.carried
        assert header.rollback is not None
        outcome.done.CopyFrom(rollback_proto(header.rollback))
        outcome.sequence, outcome.epoch = header.sequence, header.epoch
        times.set_us(outcome.published_at, header.created_at_us)
    return outcome
