"""Spans of gRPC calls: W3C ``traceparent`` in the metadata. Only in a process that traces.

A trace begins at a door (contract.trace_ids): the gateway's answer is its root, under the ids that the
request's id says, or the child of a client's span of the same trace. A client that comes with a trace of its
own is linked to, not joined: what happens to a request behind Kafka is found by its id. Every other method
has a span when its caller is in one. Calls that stream have none.
"""

from __future__ import annotations

import uuid
from typing import Any

import grpc
from grpc.aio import ClientCallDetails, Metadata
from opentelemetry.trace import Status, StatusCode

from services.contract.trace_ids import DOORS, TRACEPARENT, SpanRef, parse, traceparent
from services.runtime.grpc_errors import status_of
from services.runtime.grpc_handlers import Behaviour
from services.runtime.otel import Span, SpanKind, Tracing, ref_of


def traced_handler(tracing: Tracing, path: str, behaviour: Behaviour) -> Behaviour:
    """A handler of ``/service/method`` that takes one request and gives one answer, in a span."""
    door = path in DOORS

    async def call(request: Any, context: grpc.aio.ServicerContext) -> Any:
        sent = dict(context.invocation_metadata() or ())
        caller = parse(sent.get(TRACEPARENT))
        span = _door(tracing, path, request, caller) if door else _inner(tracing, path, caller)
        if span is None:
            return await behaviour(request, context)
        try:
            with tracing.inside(span):
                answer = await behaviour(request, context)
        except BaseException as error:
            _failed(
                span, status_of(error).code if isinstance(error, Exception) else grpc.StatusCode.CANCELLED
            )
            raise
        else:
            span.set_attribute("rpc.grpc.status_code", 0)
            return answer
        finally:
            span.end()

    return call


def _inner(tracing: Tracing, path: str, caller: SpanRef | None) -> Span | None:
    if caller is None:
        return None
    return tracing.start(path[1:], SpanKind.SERVER, caller, attributes=_attributes(path))


def _door(tracing: Tracing, path: str, request: Any, caller: SpanRef | None) -> Span | None:
    if not request.request_id:
        # The service would make one: it has to be known before its trace is.
        request.request_id = uuid.uuid4().hex
    attributes = {**_attributes(path), "recloop.request_id": request.request_id}
    root = tracing.sampled_root(request.request_id)
    if caller is not None and root is not None and caller.trace_id == root.trace_id:
        return tracing.start(path[1:], SpanKind.SERVER, caller, attributes=attributes)
    if root is None:
        return None
    links = [] if caller is None else [caller]
    return tracing.begin(path[1:], SpanKind.SERVER, root, links=links, attributes=attributes)


class ClientSpans(grpc.aio.UnaryUnaryClientInterceptor):
    """Puts a call that is made inside a span into a span of its own, and tells the server."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """UnaryUnaryClientInterceptor's."""
        parent = self._tracing.current()
        if parent is None:
            return await continuation(details, request)
        path = details.method.decode() if isinstance(details.method, bytes) else details.method
        span = self._tracing.start(path[1:], SpanKind.CLIENT, parent, attributes=_attributes(path))
        metadata = Metadata(*(details.metadata or ()))
        metadata[TRACEPARENT] = traceparent(ref_of(span))
        told = ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )
        try:
            call = await continuation(told, request)
            code = await call.code()
            if code is grpc.StatusCode.OK:
                span.set_attribute("rpc.grpc.status_code", 0)
            else:
                _failed(span, code)
            return call
        except BaseException:
            _failed(span, grpc.StatusCode.CANCELLED)
            raise
        finally:
            span.end()


def _attributes(path: str) -> dict[str, str | int]:
    _, service, method = path.split("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}


def _failed(span: Span, code: grpc.StatusCode) -> None:
    span.set_attribute("rpc.grpc.status_code", code.value[0])
    span.set_status(Status(StatusCode.ERROR, code.name))
