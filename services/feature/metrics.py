"""What the feature server counts."""

from __future__ import annotations

from services.runtime import telemetry

log = telemetry.get_logger("feature")

ITEMS = telemetry.counter("feature_items", "Items asked for")
ITEMS_READ = telemetry.counter("feature_items_read", "Items read from Redis, the others were near")
NEAR_HITS = telemetry.counter("feature_near_hits", "Items answered from the near cache")
NEAR_ITEMS = telemetry.gauge("feature_near_items", "Items in the near cache")
NEAR_DROPPED = telemetry.counter("feature_near_dropped", "Items dropped: Redis said that they were written")
NEAR_EVICTED = telemetry.counter("feature_near_evicted", "Items that left the full near cache")
NEAR_CLEARED = telemetry.counter("feature_near_cleared", "Times that the near cache was emptied")
MISSING_ITEMS = telemetry.counter("feature_missing_items", "Items answered with defaults for lack of state")
MISSING_USERS = telemetry.counter("feature_missing_users", "Users answered with defaults for lack of state")
SECOND_READS = telemetry.counter("feature_second_reads", "Reads of categories that only new items named")
COMPUTED = telemetry.counter("feature_near_computed", "Rows computed: new, written, or their hop had ended")
DEGRADED = telemetry.counter("feature_degraded", "Answers without Redis, by reason", ["reason"])
SKIPPED = telemetry.counter("feature_redis_skipped", "Reads not tried while the breaker was open")
OPENED = telemetry.counter("feature_breaker_opened", "Times that the breaker opened")
SETS = telemetry.counter("feature_sets", "Wider feature sets, by whether they are served", ["outcome"])
STORE_SECONDS = telemetry.histogram("feature_store_seconds", "One read from Redis, failures included")
ENCODE_SECONDS = telemetry.histogram("feature_encode_seconds", "Encoding one answer")
BARRIER_REFUSED = telemetry.counter("feature_barrier_waits_refused", "Barrier waits refused: too many")
BARRIER_RECONNECTS = telemetry.counter("feature_barrier_reconnects", "Lost subscriptions to barriers")
