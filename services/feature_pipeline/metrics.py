"""What the feature pipeline counts."""

from __future__ import annotations

from services.runtime import telemetry

log = telemetry.get_logger("feature_pipeline")

RECORDS = telemetry.counter("feature_split_records", "Origin records split", ["topic"])
PARTS = telemetry.counter("feature_split_parts", "View events written to feature-events")
DUPLICATES = telemetry.counter("feature_split_duplicates", "Events dropped: event id seen before", ["topic"])
UNKNOWN_CATEGORY = telemetry.counter("feature_split_unknown_category", "Items of no known category")
CATALOG = telemetry.gauge("feature_catalog_items", "Items whose category is known")
CATALOG_FULL = telemetry.counter("feature_catalog_full", "Items not remembered: the catalogue is full")
DEAD = telemetry.counter("feature_dead_letters", "Records that could not be used, by topic", ["topic"])
SPLIT_RETRIES = telemetry.counter("feature_split_retries", "Rounds of stage 1 read again after an error")

FOLDED = telemetry.counter("feature_folded", "Events folded into states")
REPEATS = telemetry.counter("feature_fold_repeats", "View events dropped: not above the mark of their origin")
WRITES = telemetry.counter("feature_fold_writes", "Writes to Redis, by outcome", ["outcome"])
WRITTEN = telemetry.counter("feature_fold_entities", "States written to Redis")
CACHE_HITS = telemetry.counter("feature_fold_cache_hits", "States found in memory")
CACHE_MISSES = telemetry.counter("feature_fold_cache_misses", "States read back from Redis")
UNREADABLE = telemetry.counter("feature_fold_unreadable", "Stored states of another version, begun anew")
REDIS_ERRORS = telemetry.counter("feature_fold_redis_errors", "Failed commands; each is tried again")
CLAIMS = telemetry.counter("feature_fold_claims", "Partitions claimed, by where they start", ["start"])
BARRIERS = telemetry.counter("feature_fold_barriers", "Barriers completed")
WRITE_SECONDS = telemetry.histogram("feature_fold_write_seconds", "One write to Redis")
LAG = telemetry.gauge("feature_lag_records", "Records behind the end of a topic", ["topic"])
EVICTED = telemetry.gauge("feature_redis_evicted_keys", "Keys that Redis evicted since it started")
REDIS_BYTES = telemetry.gauge("feature_redis_bytes", "Memory that Redis uses")
VIEWS_REFUSED = telemetry.counter("feature_views_refused", "Added views that contradict what is known")
VIEWS_REPLAYED = telemetry.counter("feature_views_replayed", "View events read again for an added view")
VIEWS_JOINED = telemetry.counter("feature_views_joined", "Added views that became live, per partition")
SERVED_VIEWS = telemetry.gauge("feature_served_views", "Added views that are served behind the named set")
