"""``python -m services.page``: wires the page.

Life: the page can be asked for -> the other ports open -> SERVING; sources may come later, it says which
are missing. On SIGTERM: NOT_SERVING, streams end, questions in progress are answered, looks end, channels
close.
"""

from __future__ import annotations

from dataclasses import dataclass

import aiohttp
from aiohttp import web

from services.contract.errors import Unavailable
from services.page.asks import StatusAsks
from services.page.looks import MetricsLook
from services.page.questions import Questions
from services.page.settings import Settings
from services.page.watch import Watch
from services.page.web import application
from services.runtime.grpc_server import GrpcServer
from services.runtime.process import Process, run
from services.runtime.settings import load
from services.runtime.telemetry import get_logger

log = get_logger(__name__)
_KEEPALIVE_S = 30.0


@dataclass(frozen=True)
class Started:
    """The page in a process; ``web_port`` is the bound one."""

    server: GrpcServer
    watch: Watch
    web_port: int


async def start(settings: Settings, process: Process) -> Started:
    """Starts everything inside a process. Unavailable: a port is taken."""
    # Neighbours: a proxy configured for the outside must not see these calls.
    session = aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.DummyCookieJar())
    process.push_close("metrics session", session.close)
    status, questions = StatusAsks(settings), Questions(settings)
    process.push_close("status channels", status.close)
    process.push_close("question channels", questions.close)
    look = MetricsLook(session, settings.max_answer_bytes, settings.max_replicas)
    watch = Watch(settings, look, status)
    process.spawn(watch.run(), "looks")
    app = application(settings.web, watch, questions, process.stopping)
    port = await _serve(app, settings, process)
    # Last, since what starts last drains first: NOT_SERVING comes before anything ends.
    server = GrpcServer(settings.grpc, process, ())
    await server.start()
    server.set_serving(True)
    return Started(server, watch, port)


async def _serve(app: web.Application, settings: Settings, process: Process) -> int:
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        keepalive_timeout=_KEEPALIVE_S,
        shutdown_timeout=settings.grpc.drain_ms / 1000,
    )
    await runner.setup()
    process.push_drain("web server", runner.cleanup)
    where = f"{settings.web.host}:{settings.web.port}"
    try:
        site = web.TCPSite(runner, settings.web.host, settings.web.port)
        await site.start()
    except OSError as error:
        raise Unavailable(f"web port {where}: {error.strerror}") from error
    port = int(runner.addresses[0][1])
    log.info("page", address=f"http://{settings.web.host}:{port}/")
    return port


def main() -> None:
    """Entry point."""
    settings = load(Settings)

    async def wire(process: Process) -> None:
        await start(settings, process)
        await process.stopping.wait()

    run(settings, wire)


if __name__ == "__main__":
    main()
