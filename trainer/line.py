"""One lineage in training, from its base on: reader, publisher, core, bases, and the loop over them.

Up: fence -> (an ordered rollback: taking_back.py) -> newest base -> own deltas to the end -> samples at the
state's offsets. Down: the last delta is acknowledged -> base keeper -> publisher -> reader.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import grpc

from rec.model.v1 import model_pb2
from services.contract import times
from services.contract.errors import Conflict
from services.contract.signature import Signer, Trusted
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.telemetry import get_logger
from trainer import recovery
from trainer.bases import BaseKeeper
from trainer.core import TrainerCore
from trainer.online import OnlineTrainer, sample_starts
from trainer.orders import Orders, lineage_of
from trainer.pace import Pace
from trainer.publisher import Publisher
from trainer.schemas import Schemas
from trainer.settings import OnlineSettings
from trainer.taking_back import Store, TakingBack

log = get_logger(__name__)


class TrainedLine:
    """``open`` makes one; then ``run``, ``stop``, ``close`` (lineages.Line)."""

    def __init__(
        self,
        trainer: OnlineTrainer,
        reader: LogReader,
        bases: BaseKeeper,
        partitions: list[TopicPartition],
        held: AsyncExitStack,
    ) -> None:
        self.trainer = trainer
        self.reader = reader
        self.bases = bases
        self.partitions = partitions
        self._held = held
        self._beside: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """As Line. What runs beside the loop (bases, figures) ends with it, and ends it when it fails."""
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(self.bases.run()), group.create_task(self.trainer.refresh())]
            try:
                await self.trainer.run()
            finally:
                for task in beside:
                    task.cancel()

    def stop(self) -> None:
        """As Line."""
        self.trainer.stopping.set()

    async def close(self) -> None:
        """As Line."""
        await self._held.aclose()


async def open_line(
    settings: OnlineSettings,
    release: model_pb2.Release,
    release_channel: grpc.aio.Channel,
    executor: ThreadPoolExecutor,
    *,
    schemas: Schemas,
    orders: Orders,
) -> TrainedLine:
    """Recovers the lineage that a release names, taken back when that is ordered. SchemaMismatch when the
    model sees what is not served; Conflict when its arm has moved on meanwhile, or its chain is broken;
    everything opened is given back then."""
    async with AsyncExitStack() as opening:
        reader = LogReader(settings.kafka, settings.name)
        await reader.start()
        opening.push_async_callback(reader.stop)
        generation, policy = lineage = lineage_of(release)
        publisher = Publisher(settings.kafka, generation, policy, settings.publish_retry_ms / 1000)
        await publisher.start()
        opening.push_async_callback(publisher.stop)
        # Once more behind the fence: the newest base, or an order, may have come in between.
        newest = await recovery.wait_for_release(reader, release.arm, settings.release_wait_s, orders.take)
        if lineage_of(newest) != lineage:
            raise Conflict(f"arm {release.arm} follows {lineage_of(newest)} now, not {lineage}")
        store = Store(settings.model_store_uri, Trusted.read(settings.trusted_keys_file))
        recovered = None
        if (order := orders.outstanding(lineage)) is not None:
            back = TakingBack(lineage, reader, publisher, store, release_channel)
            recovered = await back.carry_out(order, orders, settings.max_delta_rows)
        if recovered is None:
            state = await asyncio.to_thread(recovery.load_base, newest, store.root, trusted=store.trusted)
            recovered = await recovery.replay_deltas(
                reader, state, publisher.where, newest.base.delta_offset, publisher.mark
            )
        state = recovered.state
        await schemas.learn(settings.publish_retry_ms / 1000, lambda: False)
        schemas.growing.seen_by(state.shape)
        publisher.next_offset = recovered.next_offset
        starts, partitions = await sample_starts(reader, state.sample_offsets)
        core = TrainerCore(
            state,
            settings.learning,
            settings.admission,
            epoch=state.epoch + 1,
            partitions=partitions,
            evaluation_rows=settings.evaluation_rows,
            max_record_rows=settings.max_record_rows,
            known=schemas.growing.shape,
            quarantine=orders.quarantine,
        )
        reader.assign(starts)
        bases = BaseKeeper(
            settings.model_store_uri,
            release_channel,
            partition=publisher.where.partition,
            retry_max_s=settings.base_retry_max_s,
            signer=Signer.read(settings.signing_key_file),
        )
        trainer = OnlineTrainer(
            settings,
            core,
            reader,
            publisher,
            bases,
            schemas=schemas,
            executor=executor,
            base_due=recovered.deltas >= settings.base_after_deltas,
            pace=_pace(settings, policy, state.trained_until_us),
        )
        opening.push_async_callback(trainer.stop)
        held = opening.pop_all()
    log.info(
        "training",
        generation=state.generation,
        policy=state.policy,
        sequence=state.sequence,
        epoch=state.epoch + 1,
        deltas_replayed=recovered.deltas,
        rows=state.rows,
    )
    return TrainedLine(trainer, reader, bases, list(starts), held)


def _pace(settings: OnlineSettings, policy: str, published_us: int) -> Pace | None:
    for one in settings.paces:
        if one.policy == policy:
            return Pace(one.interval_s * times.MICROS, max(published_us, 0))
    return None
