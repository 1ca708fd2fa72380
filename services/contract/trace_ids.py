"""Which trace a request belongs to: its id says so, so every process knows the trace of a record by its key.

Nothing has to be carried through the join, the samples or the lake for that, and all processes with the same
ratio decide alike whether a request is traced (OpenTelemetry calls it consistent sampling:
its TraceIdRatioBased asks the same question of the same 64 bits). What headers carry on top is the span that
wrote a record: W3C Trace Context, https://www.w3.org/TR/trace-context/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

import xxhash

# The name of the gRPC metadata and of the header on a Kafka record.
TRACEPARENT: Final = "traceparent"
# Where a trace begins: an answer to a client, who need not have named the request.
DOORS: Final = frozenset({"/rec.v1.GatewayService/Recommend"})
_FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SPAN_SEED = 0x5EED
_LOW = (1 << 64) - 1


class SpanRef(NamedTuple):
    """One span of one trace, wherever it was made."""

    trace_id: int
    span_id: int


def trace_id_of(request_id: str) -> int:
    """128 bits, not 0: xxh3 of the request's id."""
    return xxhash.xxh3_128_intdigest(request_id.encode()) or 1


def root_of(request_id: str) -> SpanRef:
    """The first span of a request's trace: the client's call when the client is traced, else the gateway's
    answer. Who has nothing but the request's id names it as the parent."""
    span_id = xxhash.xxh3_64_intdigest(request_id.encode(), seed=_SPAN_SEED) or 1
    return SpanRef(trace_id_of(request_id), span_id)


def bound_of(ratio: float) -> int:
    """What ``sampled`` compares with, for a share of the traces from 0 to 1."""
    return round(ratio * (1 << 64))


def sampled(trace_id: int, bound: int) -> bool:
    """Whether a trace is among the share."""
    return trace_id & _LOW < bound


def traceparent(ref: SpanRef) -> str:
    """The header that names a sampled span."""
    return f"00-{ref.trace_id:032x}-{ref.span_id:016x}-01"


def parse(header: str | bytes | None) -> SpanRef | None:
    """The sampled span that a header names; None when there is none, or it is none that we can read: a header
    from outside breaks nothing."""
    if header is None:
        return None
    text = header.decode("ascii", errors="replace") if isinstance(header, bytes) else header
    found = _FORM.fullmatch(text)
    if found is None or not int(found[3], 16) & 1:
        return None
    ref = SpanRef(int(found[1], 16), int(found[2], 16))
    return ref if ref.trace_id and ref.span_id else None


def span_of(headers: Iterable[tuple[str, bytes]]) -> SpanRef | None:
    """The span that wrote a record of Kafka, as its headers say."""
    for name, value in headers:
        if name == TRACEPARENT:
            return parse(value)
    return None
