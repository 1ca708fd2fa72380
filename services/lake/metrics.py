"""What the lake's writer counts."""

from __future__ import annotations

from services.runtime import telemetry

log = telemetry.get_logger("lake")

RECORDS = telemetry.counter("lake_records", "Records that the lake covers", ["table"])
ROWS = telemetry.counter("lake_rows", "Rows written", ["table"])
FILES = telemetry.counter("lake_files", "Parquet files written", ["table"])
BYTES = telemetry.counter("lake_bytes", "Bytes of Parquet written", ["table"])
BAD = telemetry.counter("lake_bad_records", "Records of samples that could not become rows", ["table"])
LOST = telemetry.counter(
    "lake_lost_records", "Offsets that Kafka no longer held when they were due", ["table"]
)
FLUSHES = telemetry.counter("lake_flushes", "Flushes by what made them due", ["table", "why"])
FLUSH_SECONDS = telemetry.histogram("lake_flush_seconds", "Duration of a flush", ["table"])
RETRIES = telemetry.counter(
    "lake_retries", "Times that Kafka or the store failed and was tried again", ["what"]
)
FENCED = telemetry.counter("lake_fenced", "Times that another writer had opened a partition", ["table"])
ORPHANS = telemetry.counter("lake_orphans", "Files removed that no record of the log named", ["table"])
BUFFERED = telemetry.gauge("lake_buffered_bytes", "Bytes of records waiting for a flush")
VIEWS = telemetry.counter("lake_views", "Tables of batch features by what became of them", ["outcome"])
VIEW_ITEMS = telemetry.gauge("lake_view_items", "Items of the newest table of batch features published here")
REFUSED = telemetry.counter("lake_refused", "Reads refused by the limit that they exceed", ["limit"])
HISTORY_ROWS = telemetry.counter("lake_history_rows", "Rows of point-in-time features answered", ["mode"])
HISTORY_SECONDS = telemetry.histogram("lake_history_seconds", "Duration of a point-in-time read")
AUDITS = telemetry.counter("lake_audits", "Audits of served features by what they found", ["outcome"])
AUDIT_REQUESTS = telemetry.counter(
    "lake_audit_requests", "Sampled snapshots: audited, or set apart and why", ["outcome"]
)
AUDIT_ROWS = telemetry.counter(
    "lake_audit_rows", "Served values against the log's, bit for bit", ["feature", "mode", "outcome"]
)
AUDIT_NONDEFAULT = telemetry.gauge(
    "lake_audit_nondefault_share", "Share of the last audit's values that were no default", ["feature"]
)
AUDIT_BEHIND = telemetry.gauge(
    "lake_audit_behind_seconds",
    "Age of the oldest event that a served state lacked: 99th percentile of those that lacked one",
    ["feature"],
)
