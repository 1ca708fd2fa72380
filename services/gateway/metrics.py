"""What the gateway counts."""

from __future__ import annotations

from services.runtime import telemetry

log = telemetry.get_logger("gateway")

DEGRADED = telemetry.counter("gateway_degraded", "Answers by what they lacked and why", ["source", "reason"])
UNSCORED = telemetry.counter("gateway_unscored", "Answers that no model scored", [])
FALLBACK = telemetry.counter("gateway_fallback", "Answers from the fallback pool", [])
NOTHING = telemetry.counter("gateway_nothing", "Requests refused for lack of any candidate", [])
SKIPPED = telemetry.counter("gateway_skipped", "Calls not made while a breaker was open", ["dependency"])
OPENED = telemetry.counter("gateway_breaker_opened", "Times that a breaker opened", ["dependency"])
UNKNOWN_USERS = telemetry.counter("gateway_unknown_users", "Requests of users without features", [])
UNKNOWN_ITEMS = telemetry.counter("gateway_unknown_items", "Candidates without features", [])
CANDIDATES = telemetry.counter("gateway_candidates", "Candidates given to ranking", [])
# Reasons: asked, standing, experiment, default; not_serving, not_loaded: drawn for an arm that is not there.
ARMS = telemetry.counter("gateway_arms", "Scored answers by the arm that served and why", ["arm", "reason"])
POOL = telemetry.gauge("gateway_fallback_pool", "Items in the fallback pool", [])
SECONDS = telemetry.histogram(
    "gateway_dependency_seconds", "Time that a dependency took, with failures", ["dependency"]
)
