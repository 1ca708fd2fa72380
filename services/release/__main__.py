"""``python -m services.release``: wiring only (with a command: commands.py).

Down: NOT_SERVING -> calls in progress end -> the log closes -> admin port.
"""

from __future__ import annotations

import sys

from rec.v1 import release_pb2_grpc
from services.contract import topics
from services.contract.feature_sets import feature_set
from services.contract.signature import Trusted
from services.contract.view_growth import GrowingSet
from services.release.commands import COMMANDS, command
from services.release.gatekeeper import Gatekeeper
from services.release.manifests import Manifests
from services.release.release_log import ReleaseLog
from services.release.served import ServedSamples
from services.release.servicer import ReleaseServicer
from services.release.settings import Settings
from services.release.steward import SampleTail, Steward
from services.runtime.clock import WallClock
from services.runtime.grpc_server import GrpcServer
from services.runtime.kafka_consumer import LogReader
from services.runtime.kafka_tail import LogTail
from services.runtime.process import Process, run
from services.runtime.settings import load


async def serve(process: Process, settings: Settings) -> GrpcServer:
    """Starts everything; SERVING when the log has been read to its end."""
    log = ReleaseLog(
        settings.kafka,
        settings.transactional_id,
        settings.read_timeout_ms / 1000,
        settings.write_timeout_ms / 1000,
    )
    process.push_close("release log", log.close)
    trusted = Trusted.read(settings.trusted_keys_file)
    manifests = Manifests(settings.model_store_uri, trusted)
    clock, window = WallClock(), ServedSamples(settings.window_s, settings.window_rows)
    growing = GrowingSet(settings.feature_set, feature_set(settings.feature_set))
    views = LogTail(settings.kafka, f"{settings.name}-views", topics.FEATURE_VIEWS.name, growing.take)
    gatekeeper = Gatekeeper(settings, window, trusted, growing, views)
    servicer = ReleaseServicer(
        log,
        clock,
        lambda error: process.fail("release log", error),
        manifests=manifests,
        window=window,
        gatekeeper=gatekeeper,
    )
    register = release_pb2_grpc.add_ReleaseServiceServicer_to_server
    server = GrpcServer(settings.grpc, process, [(register, servicer, "rec.v1.ReleaseService")])
    await server.start()
    await log.opened()
    reader = LogReader(settings.kafka, f"{settings.name}-samples")
    await reader.start()
    process.push_close("samples reader", reader.stop)
    process.push_close("views reader", views.stop)
    await views.start()
    steward = Steward(settings, window, clock, servicer.decide, gatekeeper)
    process.spawn(SampleTail(reader, window, steward.promotion.served).run(), "samples")
    process.spawn(steward.run(), "steward")
    server.set_serving(True)
    return server


async def main(process: Process) -> None:
    """Serves until the process stops."""
    await serve(process, settings)
    await process.stopping.wait()


if __name__ == "__main__":
    if COMMANDS.keys() & {*sys.argv[1:]}:
        raise SystemExit(command(sys.argv[1:]))
    settings = load(Settings)
    run(settings, main)
