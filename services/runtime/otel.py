"""Spans by OpenTelemetry's SDK, sent by OTLP over gRPC. Imported only by a process that traces.

Sampling is decided before a span is started (contract.trace_ids), so the SDK samples everything. Spans wait
in a bounded queue for a thread that sends them; what it has no room for is counted, as is what nobody took.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags

from services.contract.trace_ids import SpanRef, bound_of, root_of, sampled
from services.runtime.settings import TracingSettings
from services.runtime.telemetry import counter

__all__ = ["Span", "SpanKind", "Tracing", "ref_of"]

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_BATCH_SPANS = 512
_DELAY_MS = 500
Attributes = Mapping[str, str | int]


class Tracing:
    """What a process does with spans; any thread."""

    def __init__(self, settings: TracingSettings, service: str) -> None:
        self._max_links = settings.max_links
        self._bound = bound_of(settings.sample_ratio)
        self._ids = _Ids()
        exporter = OTLPSpanExporter(settings.endpoint, timeout=settings.export_timeout_ms / 1000)
        self._processor = _Counting(
            _Counted(exporter),
            settings.export_timeout_ms,
            settings.max_queue_spans,
        )
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create({"service.name": service}),
            shutdown_on_exit=False,
            id_generator=self._ids,
            span_limits=SpanLimits(max_links=settings.max_links),
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("recloop")
        self._left_out = counter("trace_links_left_out", "Links beyond tracing.max_links of a span.")

    def sampled_root(self, request_id: str) -> SpanRef | None:
        """The root of a request's trace, when this request is traced."""
        root = root_of(request_id)
        return root if sampled(root.trace_id, self._bound) else None

    def start(
        self,
        name: str,
        kind: SpanKind,
        parent: SpanRef | None = None,
        *,
        links: Sequence[SpanRef] = (),
        attributes: Attributes | None = None,
        start_us: int | None = None,
    ) -> Span:
        """A span that the caller ends; without a parent it begins a trace with ids of its own. At most
        ``max_links`` links, the newest; the others are counted."""
        if len(links) > self._max_links:
            self._left_out.inc(len(links) - self._max_links)
            links = links[-self._max_links :]
        return self._tracer.start_span(
            name,
            context=trace.set_span_in_context(NonRecordingSpan(_context(parent)), _EMPTY),
            kind=kind,
            attributes=attributes,
            links=[Link(_context(one)) for one in links],
            start_time=None if start_us is None else start_us * 1000,
        )

    def begin(self, name: str, kind: SpanKind, root: SpanRef, **given: Any) -> Span:
        """As ``start``: the root span of a request's trace, under the ids that the request's id says."""
        with self._ids.fixed(root):
            return self.start(name, kind, **given)

    def current(self) -> SpanRef | None:
        """The span that this task is in."""
        context = trace.get_current_span().get_span_context()
        return SpanRef(context.trace_id, context.span_id) if context.is_valid else None

    @staticmethod
    @contextmanager
    def inside(span: Span) -> Iterator[None]:
        """Makes a span the current one of this task, and of what it starts; does not end it."""
        with trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
            yield

    @contextmanager
    def span(self, name: str, kind: SpanKind, parent: SpanRef | None = None, **given: Any) -> Iterator[Span]:
        """``start``, current inside, ended at the end: as failed when that is an error."""
        span = self.start(name, kind, parent, **given)
        with trace.use_span(span, end_on_exit=True):
            yield span

    def flush(self) -> None:
        """Sends what waits now."""
        self._processor.force_flush()

    def close(self) -> None:
        """Sends what waits, then no more."""
        self._provider.shutdown()


# Not the current context: a span's parent is what the caller says.
_EMPTY = trace.set_span_in_context(trace.INVALID_SPAN)


def ref_of(span: Span) -> SpanRef:
    """For a header, or for whoever links to it."""
    context = span.get_span_context()
    return SpanRef(context.trace_id, context.span_id)


def _context(ref: SpanRef | None) -> SpanContext:
    if ref is None:
        return trace.INVALID_SPAN_CONTEXT
    return SpanContext(ref.trace_id, ref.span_id, is_remote=True, trace_flags=_SAMPLED)


class _Ids(RandomIdGenerator):
    """Random, except for what is started inside ``fixed``."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextmanager
    def fixed(self, root: SpanRef) -> Iterator[None]:
        self._local.root = root
        try:
            yield
        finally:
            self._local.root = None

    def generate_trace_id(self) -> int:
        root: SpanRef | None = getattr(self._local, "root", None)
        return super().generate_trace_id() if root is None else root.trace_id

    def generate_span_id(self) -> int:
        root: SpanRef | None = getattr(self._local, "root", None)
        return super().generate_span_id() if root is None else root.span_id


class _Counting(BatchSpanProcessor):
    """Counts the spans for which there is no room. The SDK's queue drops its oldest then, and only logs it;
    the parts of it that are used here are held by a test."""

    def __init__(self, exporter: SpanExporter, patience_ms: int, max_spans: int) -> None:
        super().__init__(
            exporter,
            max_queue_size=max_spans,
            max_export_batch_size=min(_BATCH_SPANS, max_spans),
            schedule_delay_millis=_DELAY_MS,
        )
        self._patience_ms = patience_ms
        self._dropped = counter("trace_spans_dropped", "Spans dropped: too many waited to be sent.")

    def on_end(self, span: ReadableSpan) -> None:
        """SpanProcessor's."""
        batches = self._batch_processor
        if len(batches._queue) >= batches._max_queue_size:
            self._dropped.inc()
        super().on_end(span)

    def shutdown(self) -> None:
        """SpanProcessor's. A collector that is away delays the end of the process by so much and no more."""
        self._batch_processor.shutdown(timeout_millis=self._patience_ms)


class _Counted(SpanExporter):
    """Counts what became of the spans that were sent."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._sent = counter("trace_spans_sent", "Spans sent by OTLP.", ["outcome"])

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """SpanExporter's."""
        result = self._inner.export(spans)
        outcome = "taken" if result is SpanExportResult.SUCCESS else "failed"
        self._sent.labels(outcome).inc(len(spans))
        return result

    def shutdown(self) -> None:
        """SpanExporter's."""
        self._inner.shutdown()
