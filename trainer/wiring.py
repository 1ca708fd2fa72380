"""``trainer online``: wiring only.

Up: ports (NOT_SERVING) -> release of the arm -> fence -> base -> own deltas to the end -> samples at the
state's offsets -> SERVING. Down: NOT_SERVING -> the last delta is acknowledged -> base keeper -> publisher
-> readers -> admin port.
"""

from __future__ import annotations

import asyncio

import torch

from rec.v1 import worker_pb2_grpc
from services.contract import id_table
from services.contract.feature_sets import feature_set
from services.contract.model_schema import shape_of
from services.runtime.grpc_client import channel
from services.runtime.grpc_server import GrpcServer
from services.runtime.kafka_consumer import LogReader
from services.runtime.process import Process
from services.runtime.telemetry import freeze_after_load, get_logger
from trainer import recovery
from trainer.bases import BaseKeeper
from trainer.core import TrainerCore
from trainer.online import OnlineTrainer, sample_starts
from trainer.publisher import Publisher
from trainer.settings import OnlineSettings
from trainer.status import TrainerStatus

log = get_logger(__name__)
SERVICE = "rec.v1.WorkerService"


async def serve(process: Process, settings: OnlineSettings) -> None:
    """Recovers, trains until the process stops."""
    torch.set_num_threads(settings.threads)
    status = TrainerStatus(settings.name)
    register = worker_pb2_grpc.add_WorkerServiceServicer_to_server
    server = GrpcServer(settings.grpc, process, [(register, status, SERVICE)])
    await server.start()
    reader = LogReader(settings.kafka, settings.name)
    await reader.start()
    process.push_close("reader", reader.stop)
    await asyncio.to_thread(id_table.warm_up)
    release = await recovery.wait_for_release(reader, settings.arm, settings.release_wait_s)

    publisher = Publisher(
        settings.kafka,
        release.lineage.generation,
        release.lineage.policy,
        settings.publish_retry_ms / 1000,
    )
    await publisher.start()
    process.push_close("publisher", publisher.stop)
    # Once more behind the fence: the newest base may have come in between.
    release = await recovery.wait_for_release(reader, settings.arm, settings.release_wait_s)
    state = await asyncio.to_thread(
        recovery.load_base,
        release,
        shape_of(feature_set(settings.feature_set)),
        settings.model_store_uri,
    )
    recovered = await recovery.replay_deltas(
        reader, state, publisher.where, release.base.delta_offset, publisher.mark
    )
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
    )
    reader.assign(starts)
    release_channel = channel(settings.release_target, settings.grpc_client)
    process.push_close("release channel", release_channel.close)
    bases = BaseKeeper(
        settings.model_store_uri,
        release_channel,
        partition=publisher.where.partition,
        retry_max_s=settings.base_retry_max_s,
    )
    process.spawn(bases.run(), "bases")
    trainer = OnlineTrainer(
        settings,
        core,
        reader,
        publisher,
        bases,
        stopping=process.stopping,
        base_due=recovered.deltas >= settings.base_after_deltas,
    )
    process.push_close("trainer", trainer.stop)
    process.spawn(trainer.run(), "train", finishes=True)
    process.spawn(trainer.refresh(), "figures")
    status.ready(trainer, reader, bases, list(starts))
    freeze_after_load()
    server.set_serving(True)
    log.info(
        "training",
        generation=state.generation,
        policy=state.policy,
        sequence=state.sequence,
        epoch=state.epoch + 1,
        deltas_replayed=recovered.deltas,
        rows=state.rows,
    )
    await process.stopping.wait()
