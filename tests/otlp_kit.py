"""A real OTLP receiver (gRPC), and traced processes that send to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from services.contract.trace_ids import SpanRef
from services.runtime import tracing
from services.runtime.otel import Tracing
from services.runtime.settings import TracingSettings


@dataclass(frozen=True)
class Received:
    """One span as it came over the wire; ids are numbers, 0 = none."""

    service: str
    name: str
    kind: int
    ref: SpanRef
    parent: int
    links: tuple[SpanRef, ...]
    attributes: dict[str, str | int]
    start_us: int
    end_us: int
    failed: bool


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span."""

    def __init__(self) -> None:
        self._spans: list[Received] = []
        self._lock = threading.Lock()
        self.endpoint = ""

    def Export(self, request, context):
        """TraceService's."""
        found = []
        for resource in request.resource_spans:
            named = {one.key: one.value.string_value for one in resource.resource.attributes}
            spans = (span for scope in resource.scope_spans for span in scope.spans)
            found += [_received(named["service.name"], span) for span in spans]
        with self._lock:
            self._spans += found
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Received]:
        """All so far, by their start."""
        with self._lock:
            return sorted(self._spans, key=lambda span: span.start_us)

    def of(self, trace_id: int) -> list[Received]:
        """Those of one trace."""
        return [span for span in self.spans if span.ref.trace_id == trace_id]

    def named(self, name: str) -> Received:
        """The only span of this name."""
        (found,) = (span for span in self.spans if span.name == name)
        return found

    def until(self, reached: Callable[[Receiver], object], timeout_s: float = 20.0) -> None:
        """Waits until something holds."""
        deadline = time.monotonic() + timeout_s
        while not reached(self):
            assert time.monotonic() < deadline, [f"{span.service} {span.name}" for span in self.spans]
            time.sleep(0.05)


def _received(service: str, span) -> Received:
    values = {one.key: one.value for one in span.attributes}
    return Received(
        service=service,
        name=span.name,
        kind=span.kind,
        ref=SpanRef(_number(span.trace_id), _number(span.span_id)),
        parent=_number(span.parent_span_id),
        links=tuple(SpanRef(_number(one.trace_id), _number(one.span_id)) for one in span.links),
        attributes={
            key: value.int_value if value.HasField("int_value") else value.string_value
            for key, value in values.items()
        },
        start_us=span.start_time_unix_nano // 1000,
        end_us=span.end_time_unix_nano // 1000,
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
    )


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port."""
    receiver = Receiver()
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    receiver.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield receiver
    finally:
        server.stop(None).wait()


@contextmanager
def traced(receiver: Receiver, **settings: float) -> Iterator[Tracing]:
    """This process traces, all requests unless told otherwise; what is built inside takes part."""
    wanted = TracingSettings(endpoint=receiver.endpoint, **{"sample_ratio": 1.0} | settings)
    with tracing.configured(wanted, "tested") as active:
        assert active is not None
        yield active
