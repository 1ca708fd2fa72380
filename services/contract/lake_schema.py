"""The lake's tables and their columns.

    snapshots, impressions, actions   one row per record of the topic, heartbeats, barriers and malformed ones
                                      included: lateness is a function of the log alone, so whoever joins from
                                      the lake needs everything that moves the event clock
    samples                           one row per item of a record; its barriers are no rows
    items                             one row per record of the catalogue: every listing, not only the newest

``partition`` and ``offset`` say where a row stood (with ``row`` within the record for samples): together they
are its key. Columns of several values keep the bytes of their message (little-endian, see
protos/rec/events/v1/events.proto). Times are microseconds since 1970 UTC.

A table evolves by new columns, all nullable: older files answer null for them (lake_files.scan).
"""

from __future__ import annotations

import pyarrow as pa

from services.contract import topics

TABLES = ("snapshots", "impressions", "actions", "samples", "items")
TOPIC_OF = {
    "snapshots": topics.FEATURE_SNAPSHOTS.name,
    "impressions": topics.IMPRESSIONS.name,
    "actions": topics.ACTIONS.name,
    "samples": topics.SAMPLES.name,
    "items": topics.CATALOG.name,
}

_RECORD = [
    pa.field("partition", pa.int32()),
    pa.field("offset", pa.int64()),
    # Of Kafka: when the record was appended or created, as the topic says.
    pa.field("appended_ms", pa.int64()),
    # event, heartbeat, barrier or malformed.
    pa.field("record", pa.string()),
    pa.field("event_id", pa.string()),
    pa.field("request_id", pa.string()),
    pa.field("occurred_us", pa.int64()),
    pa.field("user_id", pa.uint64()),
    pa.field("barrier_id", pa.string()),
    # What is wrong with a malformed record, and how many impressed items it stands for.
    pa.field("detail", pa.string()),
    pa.field("items", pa.int32()),
]
_MODEL = [
    pa.field("schema_hash", pa.uint64()),
    pa.field("generation", pa.uint64()),
    pa.field("policy", pa.string()),
    pa.field("sequence", pa.uint64()),
    pa.field("arm", pa.string()),
]
SCHEMAS: dict[str, pa.Schema] = {
    "snapshots": pa.schema(
        [
            *_RECORD,
            pa.field("scored_us", pa.int64()),
            *_MODEL,
            # n x uint64, n x float32, user_width x float32, n x item_width x float32.
            pa.field("item_ids", pa.binary()),
            pa.field("scores", pa.binary()),
            pa.field("user_features", pa.binary()),
            pa.field("item_features", pa.binary()),
        ]
    ),
    "impressions": pa.schema(
        [
            *_RECORD,
            pa.field("item_ids", pa.list_(pa.uint64())),
            # Empty: 0, 1, 2, ...
            pa.field("positions", pa.list_(pa.uint32())),
            pa.field("unscored", pa.bool_()),
        ]
    ),
    "actions": pa.schema(
        [
            *_RECORD,
            pa.field("item_id", pa.uint64()),
            pa.field("kind", pa.int32()),
            pa.field("dwell_us", pa.int64()),
        ]
    ),
    "samples": pa.schema(
        [
            pa.field("partition", pa.int32()),
            pa.field("offset", pa.int64()),
            # Within the record.
            pa.field("row", pa.int32()),
            pa.field("appended_ms", pa.int64()),
            pa.field("request_id", pa.string()),
            pa.field("occurred_us", pa.int64()),
            pa.field("user_id", pa.uint64()),
            *_MODEL,
            pa.field("item_id", pa.uint64()),
            pa.field("label", pa.float32()),
            pa.field("label_version", pa.uint32()),
            pa.field("position", pa.uint32()),
            pa.field("score", pa.float32()),
            pa.field("sample_rate", pa.float32()),
            pa.field("impressed_us", pa.int64()),
            # Null on rows that the window's end decided.
            pa.field("acted_us", pa.int64()),
            pa.field("scored_us", pa.int64()),
            pa.field("joined_us", pa.int64()),
            # user_width x float32, item_width x float32.
            pa.field("user_features", pa.binary()),
            pa.field("item_features", pa.binary()),
        ]
    ),
    "items": pa.schema(
        [
            pa.field("partition", pa.int32()),
            pa.field("offset", pa.int64()),
            pa.field("appended_ms", pa.int64()),
            # event, removed (a tombstone) or malformed.
            pa.field("record", pa.string()),
            pa.field("detail", pa.string()),
            pa.field("item_id", pa.uint64()),
            pa.field("item_key", pa.string()),
            pa.field("category", pa.uint32()),
            # The item's birth; null = unknown.
            pa.field("created_us", pa.int64()),
        ]
    ),
}
