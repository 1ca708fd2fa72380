"""The span of a delta that a replica applies, in the delta's own trace. Only in a process that traces."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from services.contract import topics
from services.contract.delta import Header
from services.contract.trace_ids import parse
from services.runtime import tracing

if TYPE_CHECKING:
    from services.runtime.otel import Tracing

_NOTHING = nullcontext()


class AppliedTraces:
    """Of one replica."""

    def __init__(self, tracing: Tracing, replica: str) -> None:
        from services.runtime import otel, traced_records

        self._kind = otel.SpanKind.CONSUMER
        self._attributes = {
            **traced_records.attributes_of(topics.MODEL_DELTAS.name, "process"),
            "recloop.replica": replica,
        }
        self._tracing = tracing

    def applying(self, arm: str, header: Header, traceparent: bytes | None) -> AbstractContextManager[Any]:
        """Around the application; ``traceparent`` is the header of the delta's record."""
        parent = parse(traceparent)
        if parent is None:
            return _NOTHING
        attributes = {
            **self._attributes,
            "recloop.arm": arm,
            "recloop.lineage": f"{header.generation}/{header.policy}",
            "recloop.sequence": header.sequence,
        }
        name = f"process {topics.MODEL_DELTAS.name}"
        return self._tracing.span(name, self._kind, parent, attributes=attributes)


def applied_traces(replica: str) -> AppliedTraces | None:
    """None: this process does not trace."""
    traced = tracing.active()
    return None if traced is None else AppliedTraces(traced, replica)
