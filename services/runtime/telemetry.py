"""Logs (JSON lines on stderr), metrics (Prometheus) and the event loop's pulse.

Metric factories may be called again with the same name and return the same metric, so that a component can
be built twice in one process (tests, a rebuilt client).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import structlog
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from services.runtime import tracing

PREFIX = "recloop_"
_LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# Of how long a step takes on the way from a click to a served model, in seconds.
STAGE_BUCKETS = (
    *(0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0),
)
_METRICS: dict[str, MetricWrapperBase] = {}
_PULSE_S = 0.25
_REPEAT_S = 10.0
# Templates are few; messages formatted by the library itself could be many.
_MAX_TEMPLATES = 200

_MetricT = TypeVar("_MetricT", bound=MetricWrapperBase)


def _once(name: str, make: Callable[[], _MetricT]) -> _MetricT:
    if name not in _METRICS:
        _METRICS[name] = make()
    return _METRICS[name]  # type: ignore[return-value]


def counter(name: str, help_text: str, labels: Sequence[str] = (), prefix: str = PREFIX) -> Counter:
    """A monotone count; Prometheus shows it as ``recloop_<name>_total``."""
    return _once(prefix + name, lambda: Counter(prefix + name, help_text, labels))


def gauge(name: str, help_text: str, labels: Sequence[str] = (), prefix: str = PREFIX) -> Gauge:
    """A value that goes up and down."""
    return _once(prefix + name, lambda: Gauge(prefix + name, help_text, labels))


def histogram(
    name: str,
    help_text: str,
    labels: Sequence[str] = (),
    buckets: Sequence[float] = _LATENCY_BUCKETS,
    prefix: str = PREFIX,
) -> Histogram:
    """A distribution; the default buckets are seconds from 0.5 ms to 5 s."""
    return _once(prefix + name, lambda: Histogram(prefix + name, help_text, labels, buckets=buckets))


def observe_all(one: Histogram, values: Iterable[float]) -> None:
    """Observes many values at once: a lock and an addition per bucket instead of per value.

    The client library has no such call; its parts that are used here are held by a test."""
    bounds, total = one._upper_bounds, 0.0
    counts = [0] * len(bounds)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
        total += value
    one._sum.inc(total)
    for bucket, count in zip(one._buckets, counts, strict=True):
        if count:
            bucket.inc(count)


def configure_logging(service: str, level: str = "INFO") -> None:
    """Sends structlog's and the libraries' logs as JSON lines to stderr, each with the service's name."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _with_service(service),
        _with_trace,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    for library in ("aiokafka", "opentelemetry"):
        handler.addFilter(Sparse(library, _REPEAT_S))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("aiokafka").setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


class Sparse(logging.Filter):
    """Lets each message template of a library pass once in ``every_s``.

    aiokafka says thirty times a second that a broker is away; the first time is news. What was held back is
    counted in the next line that passes.
    """

    def __init__(self, library: str, every_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._library = library
        self._every_s = every_s
        self._monotonic = monotonic
        self._passed: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if record.name.partition(".")[0] != self._library:
            return True
        template, now = str(record.msg), self._monotonic()
        if now - self._passed.get(template, -self._every_s) < self._every_s:
            self._held[template] = self._held.get(template, 0) + 1
            return False
        if len(self._passed) >= _MAX_TEMPLATES:
            self._passed.clear()
        self._passed[template] = now
        held = self._held.pop(template, 0)
        if held:
            record.msg = f"{template} (and {held} more like it)"
        return True


def _with_service(service: str) -> Callable[[Any, str, dict[str, Any]], dict[str, Any]]:
    def add(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        event["service"] = service
        return event

    return add


def _with_trace(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Of what is said inside a span."""
    traced = tracing.active()
    if traced is not None and (span := traced.current()) is not None:
        event["trace_id"], event["span_id"] = f"{span.trace_id:032x}", f"{span.span_id:016x}"
    return event


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A structured logger: ``log.info("what happened", key=value)``."""
    return structlog.stdlib.get_logger(name)


class Pulse:
    """The event loop's pulse: how late it turns, and when it last did.

    Read from other threads: ``age_s`` tells the admin port that the loop is stuck."""

    def __init__(self) -> None:
        self._beat = time.monotonic()
        self._lag = gauge("event_loop_lag_seconds", "How late the event loop's last timer was.")
        self._worst = gauge("event_loop_lag_max_seconds", "Largest lag since the start.")
        self._worst_s = 0.0

    def age_s(self) -> float:
        """Seconds since the loop last turned."""
        return time.monotonic() - self._beat

    async def run(self) -> None:
        """Beats until cancelled."""
        while True:
            due = time.monotonic() + _PULSE_S
            await asyncio.sleep(_PULSE_S)
            self._beat = time.monotonic()
            lag = max(0.0, self._beat - due)
            self._lag.set(lag)
            if lag > self._worst_s:
                self._worst_s = lag
                self._worst.set(lag)


async def collect_garbage_every(seconds: float) -> None:
    """Instead of the collector's own rule, until cancelled: for a process whose state is large, changes all
    the time and has no cycles. There each small collection walks over what has just come and stays.
    """
    gc.disable()
    try:
        while True:
            await asyncio.sleep(seconds)
            gc.collect()
    finally:
        gc.enable()


def freeze_after_load() -> None:
    """Takes what has been loaded out of garbage collection: a full collection over large tables stalls for
    100 ms.
    """
    gc.collect()
    gc.freeze()
