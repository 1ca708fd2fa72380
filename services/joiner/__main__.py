"""``python -m services.joiner``: wiring only.

Down: NOT_SERVING -> reading stops -> each partition commits what it has said -> producers close -> the
group is left -> admin port."""

from __future__ import annotations

import asyncio

from rec.v1 import worker_pb2_grpc
from services.joiner.host import JoinHost
from services.joiner.servicer import WorkerServicer
from services.joiner.settings import Settings
from services.runtime.clock import WallClock
from services.runtime.grpc_server import GrpcServer
from services.runtime.process import Process, run
from services.runtime.settings import load
from services.runtime.telemetry import collect_garbage_every

_READY_CHECK_S = 0.1


async def serve(process: Process, settings: Settings) -> tuple[GrpcServer, JoinHost]:
    """Starts everything; SERVING follows the state of the owned partitions."""
    host = JoinHost(settings, WallClock())
    register = worker_pb2_grpc.add_WorkerServiceServicer_to_server
    server = GrpcServer(settings.grpc, process, [(register, WorkerServicer(host), "rec.v1.WorkerService")])
    await server.start()
    process.push_close("join host", host.close)
    await host.start()
    process.spawn(host.scheme.run(), "scheme")
    process.spawn(host.run(), "join")
    process.spawn(_tell_health(server, host), "health")
    process.spawn(collect_garbage_every(settings.gc_interval_ms / 1000), "garbage")
    return server, host


async def _tell_health(server: GrpcServer, host: JoinHost) -> None:
    while True:
        server.set_serving(host.ready)
        await asyncio.sleep(_READY_CHECK_S)


async def main(process: Process) -> None:
    """Serves until the process stops."""
    await serve(process, settings)
    await process.stopping.wait()


if __name__ == "__main__":
    settings = load(Settings)
    run(settings, main)
