"""Spans of Kafka records: W3C ``traceparent`` in the header. Only in a process that traces.

Names and attributes are those of OpenTelemetry's messaging conventions: ``send <topic>`` from the moment that
a record is given to the producer until Kafka has acknowledged it. A record keyed by a request's id stands in
that request's trace, whoever sends it: many requests may share a call, a batch or a transaction.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from opentelemetry.trace import Status, StatusCode

from services.contract import topics
from services.contract.trace_ids import TRACEPARENT, SpanRef, traceparent
from services.runtime.otel import Span, SpanKind, Tracing, ref_of

_BY_REQUEST = frozenset(topic.name for topic in topics.ALL if topic.key == "request_id")
Header = tuple[str, bytes]


def by_request(topic: str) -> bool:
    """Whether the records of a topic, or of one with a joiner's suffix, have a request's id as their key."""
    return topic in _BY_REQUEST or topic.startswith(f"{topics.SAMPLES.name}-")


def header_of(span: Span) -> Header:
    """What a record carries."""
    return TRACEPARENT, traceparent(ref_of(span)).encode()


def attributes_of(topic: str, operation: str, **more: Any) -> dict[str, str | int]:
    """Of a span about a topic."""
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": topic,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        **{f"messaging.{name}": value for name, value in more.items()},
    }


class SentRecords:
    """For a producer: the span of each record that belongs to a trace."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def sending(self, topic: str, key: bytes | None) -> Span | None:
        """None: the record belongs to no trace."""
        parent = self._parent(topic, key)
        if parent is None:
            return None
        return self._tracing.start(
            f"send {topic}", SpanKind.PRODUCER, parent, attributes=attributes_of(topic, "send")
        )

    def _parent(self, topic: str, key: bytes | None) -> SpanRef | None:
        current = self._tracing.current()
        if not by_request(topic):
            return current
        root = None if key is None else self._tracing.sampled_root(key.decode(errors="replace"))
        same = root is not None and current is not None and current.trace_id == root.trace_id
        return current if same else root

    @staticmethod
    def header_of(span: Span) -> Header:
        """What the record carries."""
        return header_of(span)

    @staticmethod
    def when_sent(span: Span, sent: asyncio.Future[Any]) -> None:
        """Ends the span with the future of the record."""
        sent.add_done_callback(partial(_sent, span))


def _sent(span: Span, sent: asyncio.Future[Any]) -> None:
    error = None if sent.cancelled() else sent.exception()
    if sent.cancelled() or error is not None:
        span.set_status(Status(StatusCode.ERROR, type(error).__name__ if error else "cancelled"))
    elif (placed := sent.result()) is not None:
        span.set_attribute("messaging.destination.partition.id", str(placed.partition))
        span.set_attribute("messaging.kafka.offset", placed.offset)
    span.end()
