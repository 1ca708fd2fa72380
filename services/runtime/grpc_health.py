"""What a process says about its health, on both ports.

The service port answers from the event loop, the admin port from threads. Names: "" and each service
(ready: may be sent calls) and "liveness" (the event loop turns; restart the process when it does not).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

LIVENESS = "liveness"
HEALTH_SERVICE = "grpc.health.v1.Health"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
_ADMIN_POLL_S = 0.25


class HealthState:
    """The truth that both ports tell. ``loop_age_s`` gives the seconds since the event loop last turned."""

    def __init__(self, services: Sequence[str], loop_age_s: object, loop_stall_s: float) -> None:
        self._names = frozenset(("", *services))
        self._loop_age_s = loop_age_s
        self._stall_s = loop_stall_s
        self._serving = False
        self.closing = threading.Event()
        self.drained = False
        self._watchers: set[asyncio.Event] = set()

    @property
    def serving(self) -> bool:
        """Whether the process has declared itself ready."""
        return self._serving

    def set_serving(self, serving: bool) -> None:
        """Declares readiness; called on the event loop. Nothing serves again once it is closing."""
        self._serving = serving and not self.closing.is_set()
        self._wake()

    @property
    def watches(self) -> int:
        """Clients that watch the service port."""
        return len(self._watchers)

    def close(self) -> None:
        """NOT_SERVING for good. Watches on the event loop stay open: a client whose watch ends asks again at
        once."""
        self.closing.set()
        self.set_serving(False)

    def end_watches(self) -> None:
        """Ends the watches on the event loop; the server stops now."""
        self.drained = True
        self._wake()

    def _wake(self) -> None:
        for changed in self._watchers:
            changed.set()

    def alive(self) -> bool:
        """Whether the event loop turns."""
        return self._loop_age_s() < self._stall_s  # type: ignore[operator]

    def status(self, service: str) -> int:
        """The status of a name, or UNKNOWN."""
        if service == LIVENESS:
            return SERVING if self.alive() else NOT_SERVING
        if service not in self._names:
            return UNKNOWN
        return SERVING if self._serving and self.alive() else NOT_SERVING

    def watcher(self) -> asyncio.Event:
        """An event that is set on each change; give it back with ``forget``."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        return changed

    def forget(self, changed: asyncio.Event) -> None:
        """Ends a watch."""
        self._watchers.discard(changed)


class AsyncHealth(health_pb2_grpc.HealthServicer):
    """Health on the service port. Unlike the library's own, it starts NOT_SERVING."""

    def __init__(self, state: HealthState) -> None:
        self._state = state

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """The present status; NOT_FOUND for an unknown service."""
        status = self._state.status(request.service)
        if status == UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {request.service!r}")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Every change, until the server drains."""
        changed = self._state.watcher()
        try:
            last = None
            while True:
                changed.clear()
                status = self._state.status(request.service)
                if status != last:
                    last = status
                    yield health_pb2.HealthCheckResponse(status=status)
                if self._state.drained:
                    return
                await changed.wait()
        finally:
            self._state.forget(changed)


class ThreadHealth(health_pb2_grpc.HealthServicer):
    """Health on the admin port: answers while the event loop is stuck."""

    def __init__(self, state: HealthState, max_watches: int) -> None:
        self._state = state
        self._watches = threading.BoundedSemaphore(max_watches)

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """The present status; NOT_FOUND for an unknown service."""
        status = self._state.status(request.service)
        if status == UNKNOWN:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {request.service!r}")
        return health_pb2.HealthCheckResponse(status=status)

    def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        """Every change, seen within 250 ms. A watch holds a thread: few are allowed, so that Check always
        has one.
        """
        if not self._watches.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watches on the admin port")
        try:
            last = None
            while context.is_active() and not self._state.closing.wait(_ADMIN_POLL_S if last else 0):
                status = self._state.status(request.service)
                if status != last:
                    last = status
                    yield health_pb2.HealthCheckResponse(status=status)
            yield health_pb2.HealthCheckResponse(status=self._state.status(request.service))
        finally:
            self._watches.release()
