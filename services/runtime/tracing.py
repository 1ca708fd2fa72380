"""Whether this process traces: the one switch, and what a traced process can do.

Off (no ``tracing.endpoint``) there is nothing: OpenTelemetry's traces are not imported, no handler, channel
or producer is wrapped, no header stands on a call or a record. Whoever takes part asks ``active`` once, when
it is built.

A span exists only in a sampled trace, and whether one is sampled follows from the request's id
(contract.trace_ids): nothing is started to be thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from services.contract.errors import InvalidInput
from services.runtime.settings import TracingSettings

if TYPE_CHECKING:
    from services.runtime.otel import Tracing

_active: Tracing | None = None


def active() -> Tracing | None:
    """None: this process does not trace."""
    return _active


def configure(settings: TracingSettings, service: str) -> None:
    """Once, before anything is built. InvalidInput: tracing is on, and OpenTelemetry is not installed."""
    global _active  # noqa: PLW0603
    _active = None
    if not settings.endpoint:
        return
    if find_spec("opentelemetry.sdk") is None:
        raise InvalidInput.one(
            "tracing.endpoint", settings.endpoint, "empty, unless the extra 'tracing' is installed"
        )
    from services.runtime.otel import Tracing

    _active = Tracing(settings, service)


@contextmanager
def configured(settings: TracingSettings, service: str) -> Iterator[Tracing | None]:
    """The same for a command, which sends its last spans when it leaves."""
    configure(settings, service)
    try:
        yield _active
    finally:
        close()


def close() -> None:
    """Sends what waits, within ``export_timeout_ms``; off from then on."""
    global _active
    ended, _active = _active, None
    if ended is not None:
        ended.close()
