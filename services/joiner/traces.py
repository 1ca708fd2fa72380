"""Spans of the join, in a process that traces: ``join``, from the last event read of a request to the commit
of the sample, in the request's own trace, with links to what wrote snapshot, impression and actions.

The rules of the join know nothing of it: links are kept here by the records' key, bounded, and headers are
put onto outputs before they are sent. Values are not touched.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from services.contract.trace_ids import SpanRef, span_of
from services.joiner.outgoing import Outgoing
from services.runtime import tracing
from services.runtime.kafka_consumer import ConsumerRecord
from services.runtime.telemetry import counter

if TYPE_CHECKING:
    from services.runtime.otel import Span, Tracing

# Traced requests whose labels may still come, per partition.
MAX_REQUESTS = 10_000
# Of one request: its snapshot, its impression, and the newest actions.
MAX_EVENTS = 16


class JoinTraces:
    """Of one partition."""

    def __init__(self, tracing: Tracing, samples: str) -> None:
        from services.runtime import traced_records

        self._records = traced_records
        self._tracing = tracing
        self._samples = samples
        self._read: OrderedDict[bytes, tuple[list[SpanRef], int]] = OrderedDict()
        self._forgotten = counter(
            "joiner_traces_forgotten", "Traced requests and links beyond the limit.", ["of"]
        )

    def read(self, records: Iterable[ConsumerRecord], now_us: int) -> None:
        """Remembers which spans wrote the events of traced requests."""
        for record in records:
            if record.key is None or not record.headers:
                continue
            span = span_of(record.headers)
            if span is None:
                continue
            links, _ = self._read.pop(record.key, ([], 0))
            if len(links) >= MAX_EVENTS:
                self._forgotten.labels("link").inc()
                del links[2:3]
            self._read[record.key] = ([*links, span], now_us)
        while len(self._read) > MAX_REQUESTS:
            self._read.popitem(last=False)
            self._forgotten.labels("request").inc()

    def begin(self, batch: Sequence[Outgoing], now_us: int) -> list[Span]:
        """Starts the spans of the samples of traced requests, and puts them into the samples' headers."""
        return [span for one in batch if (span := self._begin(one, now_us)) is not None]

    def _begin(self, one: Outgoing, now_us: int) -> Span | None:
        if one.topic != self._samples or one.key is None:
            return None
        root = self._tracing.sampled_root(one.key.decode(errors="replace"))
        if root is None:
            return None
        links, since_us = self._read.get(one.key, ([], now_us))
        from services.runtime.otel import SpanKind

        span = self._tracing.start(
            "join",
            SpanKind.CONSUMER,
            root,
            links=links,
            start_us=since_us,
            attributes=self._records.attributes_of(one.topic, "process"),
        )
        one.headers = [self._records.header_of(span)]
        return span

    @staticmethod
    def end(spans: Iterable[Span]) -> None:
        """They stand in the log, or never will."""
        for span in spans:
            span.end()


def join_traces(samples: str) -> JoinTraces | None:
    """None: this process does not trace. ``samples``: the topic that it writes them to."""
    traced = tracing.active()
    return None if traced is None else JoinTraces(traced, samples)
