"""Spans of learning, in a process that traces. A delta is a trace of its own, since it holds what many
requests gave: ``delta``, from the first step that learned from a traced request to Kafka's acknowledgement;
in it a ``train`` per such step, with links to the samples' spans (at most ``tracing.max_links``), and what
ranking and recall do with the delta, which finds the span in the record's header.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from services.contract import topics
from services.contract.trace_ids import SpanRef, span_of
from services.runtime import tracing
from services.runtime.kafka_consumer import ConsumerRecord
from trainer.samples import RawRecord

if TYPE_CHECKING:
    from services.contract.delta import Header
    from services.runtime.otel import Span, Tracing


class DeltaTraces:
    """Of one lineage."""

    def __init__(self, tracing: Tracing) -> None:
        from services.runtime import otel, traced_records

        self._otel = otel
        self._records = traced_records
        self._tracing = tracing
        self._open: Span | None = None
        self._flying: Span | None = None

    def wrote(self, record: ConsumerRecord) -> SpanRef | None:
        """The span that a sample came from: as its header says, else (from a joiner that does not trace) the
        request's own. None: it is not traced."""
        if (named := span_of(record.headers)) is not None:
            return named
        key = record.key
        return None if key is None else self._tracing.sampled_root(key.decode(errors="replace"))

    def trained(self, run: Sequence[RawRecord], rows: int, began_us: int) -> None:
        """A step is over."""
        links = [record.span for record in run if record.span is not None]
        if not links:
            return
        internal = self._otel.SpanKind.INTERNAL
        if self._open is None:
            self._open = self._tracing.start("delta", internal, start_us=began_us)
        count = {"batch.message_count": len(run)}
        span = self._tracing.start(
            "train",
            self._otel.SpanKind.CONSUMER,
            self._otel.ref_of(self._open),
            links=links,
            start_us=began_us,
            attributes={
                **self._records.attributes_of(topics.SAMPLES.name, "process", **count),
                "recloop.rows": rows,
            },
        )
        span.end()

    def sealed(self, header: Header) -> None:
        """Everything since the delta before is in this one."""
        self._flying, self._open = self._open, None
        if self._flying is not None:
            self._flying.set_attribute("recloop.lineage", f"{header.generation}/{header.policy}")
            self._flying.set_attribute("recloop.sequence", header.sequence)
            self._flying.set_attribute("recloop.samples_trained", header.samples_trained)

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Around the publication of the delta that was sealed last; its record carries the span."""
        flying, self._flying = self._flying, None
        if flying is None:
            yield
            return
        try:
            with self._tracing.inside(flying):
                yield
        finally:
            flying.end()


def delta_traces() -> DeltaTraces | None:
    """None: this process does not trace."""
    traced = tracing.active()
    return None if traced is None else DeltaTraces(traced)
