"""One dependency: a call that either answers well and in time, or is missing for a named reason.

A dependency that fails several times in a row is skipped for a while (breaker.py), so that a dead one does
not cost its timeout on each request. What counts as a failure: no connection, an internal error, garbage,
and a timeout of at least ``timeout_counts_s`` - a shorter one says more about the client's deadline than
about the dependency.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from services.contract.errors import InvalidInput, NotFound
from services.gateway import metrics
from services.gateway.breaker import Breaker, BreakerState

Answer = TypeVar("Answer")
# A generated stub method: request in, awaitable response out.
Call = Callable[..., Awaitable[Any]]

DEADLINE = "deadline"
UNAVAILABLE = "unavailable"
OVERLOADED = "overloaded"
REFUSED = "refused"
FAILED = "error"
INVALID_ANSWER = "invalid_answer"

_REASONS = {
    grpc.StatusCode.UNAVAILABLE: UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: DEADLINE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OVERLOADED,
    grpc.StatusCode.INVALID_ARGUMENT: REFUSED,
    grpc.StatusCode.FAILED_PRECONDITION: REFUSED,
}
# The dependency lives and has said why it will not: trying the next request is right.
_ALIVE = {OVERLOADED, REFUSED}


class Missing(Exception):
    """The dependency did not give a usable answer; ``reason`` goes into the provenance."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Dependency:
    """Calls one RPC of one service, behind a breaker."""

    def __init__(self, name: str, call: Call, breaker: Breaker, timeout_counts_s: float) -> None:
        self.name = name
        self._call = call
        self._breaker = breaker
        self._timeout_counts_s = timeout_counts_s

    @property
    def state(self) -> BreakerState:
        """Where the breaker stands."""
        return self._breaker.state

    async def ask(self, request: object, timeout_s: float, read: Callable[[Any], Answer]) -> Answer:
        """What ``read`` makes of the response (it raises InvalidInput for garbage).

        Raises Missing with the reason, and NotFound, in the dependency's words, when it does not know a name.
        """
        started = time.monotonic()
        if timeout_s <= 0:
            raise Missing(DEADLINE)
        if not self._breaker.allows(started):
            metrics.SKIPPED.labels(self.name).inc()
            raise Missing(UNAVAILABLE)
        try:
            answer = read(await self._call(request, timeout=timeout_s))
        except grpc.aio.AioRpcError as error:
            raise self._missing(error, timeout_s) from error
        except InvalidInput as error:
            self._failed()
            metrics.log.warning("invalid answer", dependency=self.name, error=str(error))
            raise Missing(INVALID_ANSWER) from error
        finally:
            metrics.SECONDS.labels(self.name).observe(time.monotonic() - started)
        self._breaker.succeeded()
        return answer

    def _missing(self, error: grpc.aio.AioRpcError, timeout_s: float) -> Exception:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            self._breaker.succeeded()
            return NotFound(error.details() or f"{self.name}: not found")
        reason = _REASONS.get(error.code(), FAILED)
        if reason in _ALIVE:
            self._breaker.succeeded()
        elif reason != DEADLINE or timeout_s >= self._timeout_counts_s:
            self._failed()
        return Missing(reason)

    def _failed(self) -> None:
        was = self._breaker.state
        self._breaker.failed(time.monotonic())
        if self._breaker.state is BreakerState.OPEN and was is not BreakerState.OPEN:
            metrics.OPENED.labels(self.name).inc()
            metrics.log.warning("dependency is skipped for a while", dependency=self.name, was=was.value)
