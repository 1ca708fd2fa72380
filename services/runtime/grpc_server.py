"""A gRPC server of a process: the service port (grpc.aio) and the admin port.

Life:

0. a process with ``bind_wait_ms`` waits until its ports are free (runtime.successor), before all else;
1. ``start`` binds admin, metrics and service ports; health says NOT_SERVING; calls are answered already;
2. ``set_serving(True)`` once the process can answer;
3. on the way down ``drain``: NOT_SERVING -> (lame duck pause) -> streams of answers end -> no new calls,
   those in progress finish within ``drain_ms``;
4. the process closes its producers and clients;
5. the admin port stops last.

``start`` registers 3 and 5 with the process; nobody else has to. With ``tls`` in the process's settings the
service port takes only clients with a certificate, and each call is looked up in contract.access.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from services.runtime.access import access_of, door
from services.runtime.grpc_admin import AdminServer, bind
from services.runtime.grpc_guard import Guard
from services.runtime.grpc_health import HEALTH_SERVICE, AsyncHealth, HealthState
from services.runtime.handshake_log import HandshakeLog
from services.runtime.process import Process
from services.runtime.reflection import add_reflection
from services.runtime.settings import GrpcServerSettings
from services.runtime.telemetry import gauge, get_logger
from services.runtime.tls import server_credentials

log = get_logger(__name__)
# (generated add_XServicer_to_server, servicer, full service name)
Registration = tuple[Callable[[Any, Any], None], Any, str]


class GrpcServer:
    """Serves ``services`` on ``settings.port``; ``port``, ``admin_port``, ``metrics_port`` are the bound
    ones.
    """

    def __init__(
        self, settings: GrpcServerSettings, process: Process, services: Sequence[Registration]
    ) -> None:
        self._settings = settings
        self._process = process
        self._services = tuple(services)
        names = [name for _, _, name in services]
        self.health = HealthState(names, process.pulse.age_s, settings.loop_stall_ms / 1000)
        self._tls = process.settings.tls
        self._access = access_of(self._tls)
        self.guard = Guard(settings.max_concurrent_rpcs, self._access)
        self._admin = AdminServer(settings, self.health, bare=self._tls.on)
        self._server: grpc.aio.Server | None = None
        self.port = 0
        self.admin_port = 0
        self.metrics_port = 0
        gauge("serving", "1 when the service port says SERVING.").set_function(
            lambda: float(self.health.serving)
        )
        gauge("grpc_health_watches", "Clients that watch the health of the service port.").set_function(
            lambda: float(self.health.watches)
        )

    async def start(self) -> None:
        """Binds and answers; Unavailable when a port is taken. Health stays NOT_SERVING."""
        credentials = server_credentials(self._tls)
        if credentials is not None:
            refused = HandshakeLog()
            refused.start()
            self._process.push_last("handshake log", lambda: asyncio.to_thread(refused.stop))
        self._admin.start()
        self._process.push_last("admin port", lambda: asyncio.to_thread(self._admin.stop))
        server = grpc.aio.server(options=self._options())
        self.guard.stand_before(server)
        for add, servicer, _ in self._services:
            add(servicer, self.guard)
        unguarded = door(server, self._access)
        health_pb2_grpc.add_HealthServicer_to_server(AsyncHealth(self.health), unguarded)
        names = [name for _, _, name in self._services]
        add_reflection(unguarded, (*names, HEALTH_SERVICE), asynchronous=True)
        self.port = bind(server, self._settings.host, self._settings.port, "service", credentials)
        self.admin_port, self.metrics_port = self._admin.port, self._admin.metrics_port
        await server.start()
        self._server = server
        self._process.push_drain("grpc server", self.drain)
        log.info("listening", port=self.port, admin_port=self.admin_port, metrics_port=self.metrics_port)

    def set_serving(self, serving: bool) -> None:
        """Declares on both ports whether calls may come."""
        if serving != self.health.serving:
            log.info("health", serving=serving)
        self.health.set_serving(serving)

    async def drain(self) -> None:
        """Step 3; may be called again."""
        server, self._server = self._server, None
        if server is None:
            return
        self.health.close()
        if self.health.watches:
            await asyncio.sleep(self._settings.lame_duck_ms / 1000)
        self.health.end_watches()
        self.guard.end_streams()
        await server.stop(self._settings.drain_ms / 1000)

    def _options(self) -> tuple[tuple[str, int], ...]:
        limits = self._settings
        return (
            # Without this two processes may share a port and each gets half of the calls.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", limits.max_message_bytes),
            ("grpc.max_send_message_length", limits.max_message_bytes),
            ("grpc.max_connection_age_ms", limits.max_connection_age_ms),
            ("grpc.max_connection_age_grace_ms", limits.max_connection_age_grace_ms),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        )
