"""A successor waits for the process that it replaces.

A process that has to be the only one of its kind (one writer of a lineage, of a log, of a partition) cannot
be started beside the old one: it would fence it while it still works. So its successor is started with the
same ports, gets as far as its imports and settings, and waits here until they are free. A process gives its
admin port up last, behind its flush and its commits: who finds it free is alone.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time

from services.runtime.settings import GrpcServerSettings
from services.runtime.telemetry import get_logger

log = get_logger(__name__)
_POLL_S = 0.05
# What the launcher looks for in the log.
WAITING = "waiting for ports"


async def until_free(settings: GrpcServerSettings) -> None:
    """Returns when admin, metrics and service port can be bound, or after ``bind_wait_ms``: who binds them
    then says which one is taken."""
    ports = [settings.admin_or_default(), settings.metrics_or_default(), settings.port]
    deadline = time.monotonic() + settings.bind_wait_ms / 1000
    said = False
    while time.monotonic() < deadline and not all(_is_free(settings.host, port) for port in ports):
        if not said:
            log.warning(WAITING, ports=ports)
            said = True
        await asyncio.sleep(_POLL_S)


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True
