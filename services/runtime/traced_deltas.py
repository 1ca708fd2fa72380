"""The span of a delta that somebody applies, in the delta's own trace. Only in a process that traces."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from services.contract import topics
from services.contract.delta import Header
from services.contract.trace_ids import SpanRef
from services.runtime import tracing

if TYPE_CHECKING:
    from services.runtime.otel import Tracing

_NOTHING = nullcontext()


class AppliedDeltas:
    """Of one process; ``attributes`` stand on each of its spans, as recloop.<name>."""

    def __init__(self, tracing: Tracing, attributes: dict[str, str]) -> None:
        from services.runtime import otel, traced_records

        self._kind = otel.SpanKind.CONSUMER
        self._kafka = traced_records.attributes_of(topics.MODEL_DELTAS.name, "process")
        self._own = attributes
        self._tracing = tracing

    def applying(self, header: Header, sent: SpanRef | None, **more: str) -> AbstractContextManager[Any]:
        """Around the application; ``sent`` is the span that the delta's record names."""
        if sent is None:
            return _NOTHING
        lineage, sequence = f"{header.generation}/{header.policy}", header.sequence
        named = {**self._own, **more, "lineage": lineage, "sequence": sequence}
        attributes = self._kafka | {f"recloop.{name}": value for name, value in named.items()}
        name = f"process {topics.MODEL_DELTAS.name}"
        return self._tracing.span(name, self._kind, sent, attributes=attributes)


def applied_deltas(**attributes: str) -> AppliedDeltas | None:
    """None: this process does not trace."""
    traced = tracing.active()
    return None if traced is None else AppliedDeltas(traced, attributes)
