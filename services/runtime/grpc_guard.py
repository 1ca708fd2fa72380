"""What stands around every handler of a server: limit, metrics, errors, and with TLS who is calling.

A call above ``max_concurrent_rpcs`` is refused at once. Health and reflection are added to the server itself,
not to its guard: they pass freely and uncounted. Metric names are the customary ones of gRPC's Prometheus
middlewares. Handlers are wrapped when they are added, so that a call costs two counters and a histogram; an
interceptor of grpc.aio would cost as much again, for asking on every call which handler it is.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NoReturn

import grpc

from services.contract.errors import Overloaded
from services.runtime import tracing
from services.runtime.access import Access
from services.runtime.grpc_errors import status_of
from services.runtime.grpc_handlers import behaviour_of, kind_of, rewrapped
from services.runtime.telemetry import counter, gauge, get_logger, histogram

log = get_logger(__name__)
_LABELS = ("grpc_type", "grpc_service", "grpc_method")


class _Method:
    """The metrics of one method."""

    def __init__(self, path: str, kind: str) -> None:
        _, service, method = path.split("/")
        labels = (kind, service, method)
        self.path = path
        self.kind = kind
        self.started = counter("grpc_server_started", "Calls begun.", _LABELS, prefix="").labels(*labels)
        self.seconds = histogram("grpc_server_handling_seconds", "Call duration.", _LABELS, prefix="").labels(
            *labels
        )
        self._labels = labels
        self._handled = counter("grpc_server_handled", "Calls ended.", (*_LABELS, "grpc_code"), prefix="")
        self._by_code: dict[str, Any] = {}

    def finish(self, code: str, began: float) -> None:
        """Counts the end of a call."""
        self.seconds.observe(time.perf_counter() - began)
        if code not in self._by_code:
            self._by_code[code] = self._handled.labels(*self._labels, code)
        self._by_code[code].inc()


class Guard:
    """Takes the place of a server when services are added to it: what the generated functions call."""

    def __init__(self, max_concurrent_rpcs: int, access: Access | None = None) -> None:
        self._limit = max_concurrent_rpcs
        self._access = access
        self._tracing = tracing.active()
        self._active = 0
        self._draining = False
        self._streams: set[asyncio.Task[Any]] = set()
        self._server: grpc.aio.Server | None = None
        self._refused = counter("grpc_overload_refused", "Calls refused above max_concurrent_rpcs.")
        self._bugs = counter("grpc_internal_errors", "Calls that ended in an unexpected error.", ["method"])
        gauge("grpc_active_rpcs", "Calls in progress.").set_function(lambda: self._active)

    @property
    def active(self) -> int:
        """Calls in progress."""
        return self._active

    def end_streams(self) -> None:
        """Ends calls that stream answers, with UNAVAILABLE: they would hold a drain until its deadline."""
        self._draining = True
        for task in self._streams:
            task.cancel()

    def stand_before(self, server: grpc.aio.Server) -> None:
        """Handlers go to this server from now on."""
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """grpc.aio.Server's: the methods of these are registered as well."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """grpc.aio.Server's; of two handlers of a method the last one counts. What a servicer leaves to its
        generated base is not added: gRPC says UNIMPLEMENTED itself."""
        assert self._server is not None  # before stand_before nothing is added
        wrapped = {
            name: self._wrap(f"/{service}/{name}", handler)
            for name, handler in handlers.items()
            if not behaviour_of(handler).__module__.endswith("_pb2_grpc")
        }
        self._server.add_registered_method_handlers(service, wrapped)

    def _wrap(self, path: str, handler: Any) -> Any:
        behaviour, method = behaviour_of(handler), _Method(path, kind_of(handler))
        if self._tracing is not None and method.kind == "unary":
            # Imported here: only this needs OpenTelemetry.
            from services.runtime.traced_calls import traced_handler

            behaviour = traced_handler(self._tracing, path, behaviour)
        if self._access is not None:
            behaviour = self._access.checked(path, behaviour)
        stand = self._many_answers if handler.response_streaming else self._one_answer
        return rewrapped(handler, stand(behaviour, method))

    def _one_answer(self, behaviour: Callable[..., Any], method: _Method) -> Callable[..., Any]:
        if not inspect.iscoroutinefunction(behaviour):
            raise TypeError(f"{method.path}: a handler that gives one answer is an async function")

        async def call(request: Any, context: grpc.aio.ServicerContext) -> Any:
            began = time.perf_counter()
            method.started.inc()
            code = "OK"
            self._active += 1
            try:
                self._check_limit()
                return await behaviour(request, context)
            except BaseException as error:
                code = _code_name(error, context)
                await self._explain(error, context, method)
            finally:
                self._active -= 1
                method.finish(code, began)

        return call

    def _many_answers(self, behaviour: Callable[..., Any], method: _Method) -> Callable[..., Any]:
        if not inspect.isasyncgenfunction(behaviour):
            raise TypeError(f"{method.path}: a handler that streams answers is an async generator")

        async def call(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            began = time.perf_counter()
            method.started.inc()
            code = "OK"
            task = asyncio.current_task()
            assert task is not None  # a handler always runs in a task
            self._streams.add(task)
            self._active += 1
            try:
                self._check_limit()
                async for answer in behaviour(request, context):
                    yield answer
            except GeneratorExit:
                code = "CANCELLED"
                raise
            except BaseException as error:
                code = _code_name(error, context)
                if self._draining and isinstance(error, asyncio.CancelledError):
                    code = "UNAVAILABLE"
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
                await self._explain(error, context, method)
            finally:
                self._active -= 1
                self._streams.discard(task)
                method.finish(code, began)

        return call

    def _check_limit(self) -> None:
        if self._active > self._limit:
            self._refused.inc()
            raise Overloaded(f"{self._limit} calls are already in progress")

    async def _explain(
        self, error: BaseException, context: grpc.aio.ServicerContext, method: _Method
    ) -> NoReturn:
        if isinstance(error, grpc.aio.AbortError) or not isinstance(error, Exception):
            raise error
        status = status_of(error)
        if not status.expected:
            self._bugs.labels(method.path).inc()
            log.error("unexpected error", method=method.path, error=repr(error), exc_info=error)
        await context.abort(status.code, status.message, status.trailing_metadata)
        raise AssertionError("abort always raises")


def _code_name(error: BaseException, context: grpc.aio.ServicerContext) -> str:
    if isinstance(error, grpc.aio.AbortError):
        code = context.code()
        for known in grpc.StatusCode:
            if code in (known, known.value[0]):
                return known.name
        return "UNKNOWN"
    if isinstance(error, Exception):
        return status_of(error).code.name
    return "CANCELLED"
