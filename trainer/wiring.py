"""``trainer online``: wiring only.

Up: ports (NOT_SERVING) -> release of the arm -> its lineage (line.py) -> SERVING; then whatever releases say
(lineages.py). Down: NOT_SERVING -> every lineage's last delta is acknowledged -> readers -> admin port.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import torch

from rec.model.v1 import model_pb2
from rec.v1 import worker_pb2_grpc
from services.runtime.grpc_client import channel
from services.runtime.grpc_server import GrpcServer
from services.runtime.kafka_consumer import LogReader
from services.runtime.process import Process
from services.runtime.telemetry import freeze_after_load
from trainer import adagrad, recovery
from trainer.line import TrainedLine, open_line
from trainer.lineages import Line, Lineages
from trainer.orders import Orders
from trainer.release_tail import ReleaseTail
from trainer.schemas import Schemas
from trainer.settings import OnlineSettings
from trainer.status import TrainerStatus

SERVICE = "rec.v1.WorkerService"


async def serve(process: Process, settings: OnlineSettings) -> None:
    """Recovers, trains until the process stops."""
    torch.set_num_threads(settings.threads)
    status = TrainerStatus(settings.name)
    register = worker_pb2_grpc.add_WorkerServiceServicer_to_server
    server = GrpcServer(settings.grpc, process, [(register, status, SERVICE)])
    await server.start()
    reader = LogReader(settings.kafka, settings.name, slow=True)
    await reader.start()
    process.push_close("release reader", reader.stop)
    await asyncio.to_thread(adagrad.warm_up)
    to_release = channel(settings.release_target, settings.grpc_client, settings.tls)
    process.push_close("release channel", to_release.close)
    # One thread for all lineages: what one learns aside takes turns with what serves.
    executor = ThreadPoolExecutor(1, thread_name_prefix="trainer")

    schemas = Schemas(settings.kafka, f"{settings.name} views", settings.feature_set)
    process.push_close("views reader", schemas.stop)
    await schemas.start()

    async def opening(release: model_pb2.Release, orders: Orders) -> Line:
        return await open_line(settings, release, to_release, executor, schemas=schemas, orders=orders)

    def own(line: Line) -> None:
        assert isinstance(line, TrainedLine)
        status.own(line)

    lineages = Lineages(
        (settings.arm, settings.candidate_arm, *settings.extra_arms),
        opening,
        own,
        linger_s=settings.lineage_linger_s,
        retry_s=settings.lineage_retry_s,
    )
    process.push_close("lineages", lineages.close)
    # All that release has said, so that nothing is trained that was quarantined before this start.
    await recovery.wait_for_release(reader, settings.arm, settings.release_wait_s, lineages.take)
    await lineages.settle()
    process.spawn(ReleaseTail(reader, lineages).run(), "releases")
    freeze_after_load()
    server.set_serving(True)
    await process.stopping.wait()
