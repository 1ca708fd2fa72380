"""Every Kafka topic: its partitions, key, value, retention, writers and readers.

Partitioning is Kafka's own: murmur2 of the key bytes, modulo the partitions. The four event topics are
co-partitioned by request_id, so that one joiner task owns partition p of all of them.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

PARTITIONS_VARIABLE = "RECLOOP_EVENT_PARTITIONS"
MAX_PARTITIONS = 256


def event_partitions(environ: Mapping[str, str] = os.environ) -> int:
    """PARTITIONS_VARIABLE, the one number of the contract that a deployment chooses: as many processes
    can share a topic, and a barrier costs as many records. The same for every process of it; each compares it
    with Kafka's own when it connects (runtime.kafka_connect). SystemExit when it is none."""
    given = environ.get(PARTITIONS_VARIABLE, "4")
    if not (given.isascii() and given.isdecimal() and 1 <= int(given) <= MAX_PARTITIONS):
        raise SystemExit(f"{PARTITIONS_VARIABLE}={given[:100]}: allowed: 1 to {MAX_PARTITIONS}")
    return int(given)


EVENT_PARTITIONS = event_partitions()
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
MAX_RECORD_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Topic:
    """One topic. ``config`` holds Kafka's own topic settings."""

    name: str
    partitions: int
    key: str
    value: str
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    retention_ms: int = 3 * DAY_MS
    compacted: bool = False
    config: dict[str, str] = field(default_factory=dict)

    def kafka_config(self) -> dict[str, str]:
        """Settings for topic creation."""
        config = {"max.message.bytes": str(MAX_RECORD_BYTES), **self.config}
        if self.compacted:
            config["cleanup.policy"] = "compact"
        else:
            config["cleanup.policy"] = "delete"
            config["retention.ms"] = str(self.retention_ms)
        return config


FEATURE_SNAPSHOTS = Topic(
    "feature-snapshots", EVENT_PARTITIONS, "request_id", "EventRecord", ("ranking",), ("joiner", "lake")
)
# Snapshots without the columns that a batch view names (batch_view): written only when ranking is told to.
FEATURE_SNAPSHOTS_SLIM = replace(FEATURE_SNAPSHOTS, name="feature-snapshots-slim", readers=("joiner",))
IMPRESSIONS = Topic(
    "impressions",
    EVENT_PARTITIONS,
    "request_id",
    "EventRecord",
    ("collector",),
    ("joiner", "feature_pipeline", "lake", "collector"),
)
ACTIONS = Topic(
    "actions",
    EVENT_PARTITIONS,
    "request_id",
    "EventRecord",
    ("collector",),
    ("joiner", "feature_pipeline", "lake", "collector"),
)
SAMPLES = Topic(
    "samples", EVENT_PARTITIONS, "request_id", "SampleRecord", ("joiner",), ("trainer", "lake", "release")
)
LATE_EVENTS = Topic("late-events", 1, "as origin", "original bytes", ("joiner",), ("operators",))
DEAD_LETTERS = Topic(
    "dead-letters",
    1,
    "as origin",
    "original bytes",
    ("joiner", "feature_pipeline", "trainer", "ranking", "recall"),
    ("operators",),
)
FEATURE_EVENTS = Topic(
    "feature-events",
    EVENT_PARTITIONS,
    "none: the partition is that of the entity's 8 bytes LE",
    "FeatureEventBatch",
    ("feature_pipeline",),
    ("feature_pipeline",),
)
FEATURE_VIEWS = Topic(
    "feature-views",
    1,
    "view.version, or served",
    "canonical text of a FeatureView; the served views",
    ("feature_pipeline", "operators"),
    ("feature_pipeline", "feature", "ranking", "trainer", "release"),
    compacted=True,
)
# A lineage lives in the one partition that its key hashes to.
MODEL_DELTAS = Topic(
    "model-deltas",
    8,
    "lineage",
    "ParameterDelta",
    ("trainer",),
    ("ranking", "recall", "trainer", "release"),
    config={"message.timestamp.type": "LogAppendTime"},
)
# Of keys on model-releases; all others are names of arms.
GENERATION_PREFIX = "generation/"
MODEL_RELEASES = Topic(
    "model-releases",
    1,
    "arm",
    "Release",
    ("release",),
    ("ranking", "recall", "trainer", "gateway", "release"),
    compacted=True,
)
RELEASE_EVENTS = Topic("release-events", 1, "arm", "ReleaseEvent", ("release",), ("reports",))
CATALOG = Topic(
    "catalog",
    1,
    "item_id (8 bytes LE)",
    "Item",
    ("collector", "loadgen"),
    ("recall", "feature_pipeline", "lake"),
    compacted=True,
)

ALL = (
    FEATURE_SNAPSHOTS,
    FEATURE_SNAPSHOTS_SLIM,
    IMPRESSIONS,
    ACTIONS,
    SAMPLES,
    LATE_EVENTS,
    DEAD_LETTERS,
    FEATURE_EVENTS,
    FEATURE_VIEWS,
    MODEL_DELTAS,
    MODEL_RELEASES,
    RELEASE_EVENTS,
    CATALOG,
)


def miscounted(wanted: Iterable[Topic], counts: Mapping[str, int]) -> list[tuple[Topic, int]]:
    """The wanted topics that stand with another number of partitions, and which: a key would lie in another
    one than its writer and its readers think. Of ``counts`` by name, 0 or none is one that is not there."""
    return [
        (topic, count)
        for topic in wanted
        if (count := counts.get(topic.name, 0)) not in (0, topic.partitions)
    ]


# What joiners write.
JOINED = (SAMPLES, LATE_EVENTS, DEAD_LETTERS)
# What a joiner beside the one of the loop may append to the names of the topics that it writes.
OUTPUT_SUFFIX = re.compile(r"(-[a-z0-9-]{1,32})?")


def suffixed(topic: Topic, suffix: str) -> Topic:
    """The topic of the same make for a joiner with this ``output_suffix``; ValueError when it is not one."""
    if not OUTPUT_SUFFIX.fullmatch(suffix):
        raise ValueError(f"output_suffix={suffix[:50]!r}: empty, or - and 1 to 32 of a-z, 0-9 and -")
    return replace(topic, name=topic.name + suffix)


# Header names on late-events and dead-letters.
HEADER_REASON = "reason"
HEADER_ORIGIN_TOPIC = "origin-topic"
HEADER_ORIGIN_PARTITION = "origin-partition"
HEADER_ORIGIN_OFFSET = "origin-offset"


def rejection_headers(reason: str, topic: str, partition: int, offset: int) -> list[tuple[str, bytes]]:
    """Headers of a record on late-events or dead-letters: why, and where the original stands."""
    return [
        (HEADER_REASON, reason.encode()),
        (HEADER_ORIGIN_TOPIC, topic.encode()),
        (HEADER_ORIGIN_PARTITION, str(partition).encode()),
        (HEADER_ORIGIN_OFFSET, str(offset).encode()),
    ]


def request_key(request_id: str) -> bytes:
    """Key on the event topics and on samples."""
    return request_id.encode()


def entity_key(entity_id: int) -> bytes:
    """Key on feature-events and catalog."""
    return entity_id.to_bytes(8, "little")


def lineage_key(generation: int, policy: str) -> bytes:
    """Key on model-deltas."""
    return f"{generation}/{policy}".encode()


def generation_key(number: int) -> str:
    """Key on model-releases of a generation's own record."""
    return f"{GENERATION_PREFIX}{number}"


def delta_partition(generation: int, policy: str) -> int:
    """The partition of model-deltas that a lineage lives in."""
    return partition_of(lineage_key(generation, policy), MODEL_DELTAS.partitions)


def murmur2(data: bytes) -> int:
    """Kafka's murmur2 (Java client's Utils.murmur2), as a positive 31-bit number.

    Use ``partition_of`` rather than this."""
    mask = 0xFFFFFFFF
    m = 0x5BD1E995
    words, rest = divmod(len(data), 4)
    h = 0x9747B28C ^ len(data)
    for word in struct.unpack_from(f"<{words}I", data):
        k = (word * m) & mask
        h = ((h * m) ^ ((k ^ (k >> 24)) * m)) & mask
    if rest:
        h ^= int.from_bytes(data[-rest:], "little")
        h = (h * m) & mask
    h ^= h >> 13
    h = (h * m) & mask
    h ^= h >> 15
    return h & 0x7FFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Kafka's default partitioner gives a key."""
    return murmur2(key) % partitions
