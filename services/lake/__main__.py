"""``python -m services.lake``: wiring only. ``python -m services.lake <command>``: see commands.py,
batch.py, feature_commands.py and view_commands.py.

Down: NOT_SERVING -> reading stops -> every buffer is flushed -> the group is left -> admin port."""

from __future__ import annotations

import asyncio
import sys

from rec.v1 import lake_pb2_grpc, worker_pb2_grpc
from services.contract.feature_sets import feature_set
from services.contract.lake_store import LakeStore
from services.lake import feature_commands, view_commands
from services.lake.auditor import Auditor, audit_rules, settle_s
from services.lake.commands import COMMANDS, command
from services.lake.history_servicer import HistoryServicer, Limits
from services.lake.host import LakeHost
from services.lake.servicer import WorkerServicer
from services.lake.settings import Settings
from services.lake.view_log import LakeEvents
from services.lake.views import ViewPublisher
from services.runtime.grpc_server import GrpcServer, Registration
from services.runtime.kafka_consumer import LogReader
from services.runtime.process import Process, run
from services.runtime.settings import load

_READY_CHECK_S = 0.1


async def serve(process: Process, settings: Settings) -> tuple[GrpcServer, LakeHost]:
    """Starts everything; SERVING follows the state of the owned partitions."""
    host = LakeHost(settings, LakeStore(settings.lake_uri))
    chosen = feature_set(settings.feature_set)
    events = LakeEvents(LakeStore(settings.lake_uri), settings.history_max_records)
    history = HistoryServicer(events, chosen, Limits(settings.history_max_rows, settings.history_chunk_bytes))
    registered: list[Registration] = [
        (worker_pb2_grpc.add_WorkerServiceServicer_to_server, WorkerServicer(host), "rec.v1.WorkerService"),
        (lake_pb2_grpc.add_LakeServiceServicer_to_server, history, "rec.v1.LakeService"),
    ]
    server = GrpcServer(settings.grpc, process, registered)
    await server.start()
    process.push_close("lake host", host.close)
    await host.start()
    process.spawn(host.run(process.stopping), "lake", finishes=True)
    process.spawn(_tell_health(server, host), "health")
    if settings.view_interval_ms:
        reader = LogReader(settings.kafka, f"{settings.name} views", slow=True)
        await reader.start()
        process.push_close("catalogue reader", reader.stop)
        publisher = ViewPublisher(LakeStore(settings.lake_uri), reader, settings.view_retention_ms / 1000)
        process.spawn(publisher.run(settings.view_interval_ms / 1000), "views")
    if settings.audit_interval_ms:
        auditor = Auditor(
            LakeStore(settings.lake_uri), events, chosen, audit_rules(settings), settle_s(settings)
        )
        process.spawn(auditor.run(settings.audit_interval_ms / 1000), "audit")
    return server, host


async def _tell_health(server: GrpcServer, host: LakeHost) -> None:
    while True:
        server.set_serving(host.ready)
        await asyncio.sleep(_READY_CHECK_S)


async def main(process: Process) -> None:
    """Serves until the process stops."""
    await serve(process, settings)
    await process.stopping.wait()


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in ("join", "reconcile"):
        # Imported here: the writer does not need DuckDB.
        from services.lake import batch

        raise SystemExit(batch.command(sys.argv[1], sys.argv[2:]))
    if sys.argv[1:] and sys.argv[1] in feature_commands.COMMANDS:
        raise SystemExit(feature_commands.command(sys.argv[1], sys.argv[2:]))
    if sys.argv[1:] and sys.argv[1] in view_commands.COMMANDS:
        raise SystemExit(view_commands.command(sys.argv[1], sys.argv[2:]))
    if sys.argv[1:] and sys.argv[1] in COMMANDS:
        raise SystemExit(command(sys.argv[1], sys.argv[2:]))
    settings = load(Settings)
    run(settings, main)
