"""The admin port: health, reflection and channelz on threads, and the metrics over HTTP.

It shares nothing with the service port but the process, so overload there, or a stuck event loop, does not
silence it. It starts first and stops last. It stays plaintext, since probes have no certificates; with TLS on
the service port it says therefore nothing but health and metrics.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2_grpc
from grpc_health.v1 import health_pb2_grpc
from prometheus_client import MetricsHandler

from services.contract.errors import Unavailable
from services.runtime.grpc_health import HEALTH_SERVICE, HealthState, ThreadHealth
from services.runtime.reflection import add_reflection
from services.runtime.settings import GrpcServerSettings

CHANNELZ_SERVICE = "grpc.channelz.v1.Channelz"
_THREADS = 6
_MAX_WATCHES = 3
_STOP_GRACE_S = 0.5
# How long the end of the process waits for the metrics page at most.
_HTTP_POLL_S = 0.05


class AdminServer:
    """A synchronous gRPC server and the metrics page. ``port`` and ``metrics_port`` are the bound ones."""

    def __init__(self, settings: GrpcServerSettings, health: HealthState, *, bare: bool = False) -> None:
        """``bare``: no channelz, no reflection."""
        self._settings = settings
        self._bare = bare
        self._health = health
        self.port = 0
        self.metrics_port = 0

    def start(self) -> None:
        """Binds both ports; Unavailable names the one that is taken."""
        host = self._settings.host
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="admin")
        self._server = grpc.server(self._pool, options=(("grpc.so_reuseport", 0),))
        health_pb2_grpc.add_HealthServicer_to_server(ThreadHealth(self._health, _MAX_WATCHES), self._server)
        if not self._bare:
            channelz_pb2_grpc.add_ChannelzServicer_to_server(channelz.ChannelzServicer(), self._server)
            add_reflection(self._server, (HEALTH_SERVICE, CHANNELZ_SERVICE), asynchronous=False)
        self.port = bind(self._server, host, self._settings.admin_or_default(), "admin")
        wanted = self._settings.metrics_or_default()
        try:
            self._http = ThreadingHTTPServer((host, wanted), MetricsHandler)
        except OSError as error:
            self._pool.shutdown(wait=False)
            raise Unavailable(f"metrics port {host}:{wanted}: {error.strerror}") from error
        self.metrics_port = self._http.server_port
        self._http_thread = threading.Thread(
            target=self._http.serve_forever, args=(_HTTP_POLL_S,), name="admin metrics", daemon=True
        )
        self._http_thread.start()
        self._server.start()

    def stop(self) -> None:
        """Stops both; blocks for at most half a second of grace."""
        self._server.stop(_STOP_GRACE_S).wait()
        self._http.shutdown()
        self._http.server_close()
        self._http_thread.join(timeout=1.0)
        self._pool.shutdown(wait=False)


def bind(
    server: grpc.Server | grpc.aio.Server,
    host: str,
    port: int,
    what: str,
    credentials: grpc.ServerCredentials | None = None,
) -> int:
    """Binds a gRPC server to host:port (plaintext without credentials) and gives the bound port; Unavailable
    when it is taken.
    """
    try:
        if credentials is None:
            bound = server.add_insecure_port(f"{host}:{port}")
        else:
            bound = server.add_secure_port(f"{host}:{port}", credentials)
    except RuntimeError as error:
        raise Unavailable(f"{what} port {host}:{port} cannot be bound; is it taken?") from error
    if bound == 0:
        raise Unavailable(f"{what} port {host}:{port} cannot be bound; is it taken?")
    return bound
