"""What the feature server counts."""

from __future__ import annotations

from services.runtime import telemetry

log = telemetry.get_logger("feature")

ITEMS = telemetry.counter("feature_items", "Items asked for")
MISSING_ITEMS = telemetry.counter("feature_missing_items", "Items answered with defaults for lack of state")
MISSING_USERS = telemetry.counter("feature_missing_users", "Users answered with defaults for lack of state")
UNREADABLE = telemetry.counter("feature_unreadable_users", "User values of another version or length")
DEGRADED = telemetry.counter("feature_degraded", "Answers without Redis, by reason", ["reason"])
SKIPPED = telemetry.counter("feature_redis_skipped", "Reads not tried while the breaker was open")
OPENED = telemetry.counter("feature_breaker_opened", "Times that the breaker opened")
STORE_SECONDS = telemetry.histogram("feature_store_seconds", "One read from Redis, failures included")
ENCODE_SECONDS = telemetry.histogram("feature_encode_seconds", "Encoding one answer")
ROW_FULL = telemetry.counter("feature_redis_refused", "Reads refused: too many wait for Redis")
CONNECTIONS = telemetry.counter("feature_redis_connections", "Connections opened for reading")
BARRIER_REFUSED = telemetry.counter("feature_barrier_waits_refused", "Barrier waits refused: too many")
BARRIER_RECONNECTS = telemetry.counter("feature_barrier_reconnects", "Lost subscriptions to barriers")
