"""What the page counts."""

from __future__ import annotations

from services.runtime import telemetry

REQUESTS = telemetry.counter("page_requests", "Requests answered, by route and status", ["route", "status"])
# Reasons: host, origin, content_type, body, watchers, questions, invalid.
REFUSED = telemetry.counter("page_refused", "Requests refused, by why", ["reason"])
WATCHERS = telemetry.gauge("page_watchers", "Pages that are open")
LOOKS = telemetry.counter("page_looks", "Looks at a source by what it came to", ["source", "state"])
LOOK_SECONDS = telemetry.histogram("page_look_seconds", "One look at all sources")
LEFT_OUT = telemetry.counter("page_left_out", "Lines or replicas beyond what is shown", ["what"])
