"""Asks the admin port of a process how it is (grpc.health.v1)."""

from __future__ import annotations

from types import TracebackType

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING = "SERVING"
UNREACHABLE = "UNREACHABLE"
TIMEOUT_S = 1.0


class HealthProbe:
    """A channel to one admin port; close it after use."""

    def __init__(self, target: str) -> None:
        # A refused connection is tried again soon: a starting process is asked several times a second.
        options = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 300))
        self._channel = grpc.insecure_channel(target, options=options)
        self._stub = health_pb2_grpc.HealthStub(self._channel)

    def __enter__(self) -> HealthProbe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def status(self, timeout_s: float = TIMEOUT_S) -> str:
        """SERVING, NOT_SERVING, or UNREACHABLE when the port does not answer."""
        try:
            answer = self._stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=timeout_s)
        except grpc.RpcError:
            return UNREACHABLE
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()


def status_of(target: str, timeout_s: float = TIMEOUT_S) -> str:
    """One question to one port."""
    with HealthProbe(target) as probe:
        return probe.status(timeout_s)
