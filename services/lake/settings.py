"""Settings of the lake."""

from __future__ import annotations

from pydantic import Field

from services.contract.feature_sets import WORLD
from services.runtime.settings import FeatureSetName, GrpcServerSettings, ProcessSettings


class Settings(ProcessSettings):
    """Writes the event topics to Parquet, and answers from it what features were."""

    name: str = "lake"
    """Name in logs and as Kafka client id."""
    grpc: GrpcServerSettings = GrpcServerSettings(port=7060)
    """The service port, the admin port and their limits."""
    lake_uri: str = "out/lake"
    """Folder or object-store URI of the lake."""
    group_id: str = "lake"
    """Consumer group: it only shares the partitions out. Where to go on is what the lake itself says."""
    flush_records: int = Field(default=50_000, gt=0)
    """Records of a partition that are written at once: larger files compress and read better."""
    flush_bytes: int = Field(default=32 * 1024 * 1024, gt=0)
    """Bytes of the same; a flush needs about four times this while it builds its columns."""
    flush_age_ms: int = Field(default=30_000, gt=0)
    """A record waits at most this long: what a reader of the lake may miss. Shorter makes more small files,
    until compaction merges them."""
    max_buffered_bytes: int = Field(default=128 * 1024 * 1024, gt=0)
    """Bytes of all partitions together; above it the largest are written early."""
    max_poll_records: int = Field(default=2_000, gt=0)
    """Records taken between two turns of the event loop. While a flush runs none are taken: the client stops
    fetching when its own buffers are full."""
    retry_ms: int = Field(default=500, gt=0)
    """Pause before the next try while the store or Kafka is away."""
    fenced_retry_ms: int = Field(default=60_000, gt=0)
    """A partition that another writer has opened waits for the group's word; without any for this long it is
    taken back."""
    view_interval_ms: int = Field(default=60_000, ge=0)
    """How often the catalogue is published as a table of batch features, when it has changed; 0 = never. What
    was born since travels with every snapshot that serves it."""
    view_retention_ms: int = Field(default=4 * 86_400_000, gt=0)
    """A table is kept for this long after a newer one has replaced it: longer than the snapshots that name
    it stay in Kafka (3 days)."""
    feature_set: FeatureSetName = WORLD
    """The features that point-in-time reads, the audit and backfills know (contract.feature_sets)."""
    history_max_rows: int = Field(default=200_000, gt=0)
    """Rows of one GetHistoricalFeatures: 32 bytes each in the request, some 300 in memory while it runs."""
    history_chunk_bytes: int = Field(default=1024 * 1024, gt=0)
    """Values in one message of its answer: far below a message's limit; a client may stop between two."""
    history_max_records: int = Field(default=5_000_000, gt=0)
    """Records of events that are read into memory for it, about 100 bytes per shown item; a larger lake is
    refused rather than the process killed."""
    audit_interval_ms: int = Field(default=20_000, ge=0)
    """How often the features in new snapshots are audited against the log; 0 = never. Each time reads all
    events of the lake."""
    audit_share: float = Field(default=0.05, gt=0.0, le=1.0)
    """Share of requests that are audited, by hash of the request id."""
    audit_settle_ms: int = Field(default=5_000, ge=0)
    """A request is audited this long after its scoring and flush_age_ms: then the lake holds what it saw."""
    audit_tolerated: float = Field(default=0.005, ge=0.0, le=1.0)
    """Share of a feature's values that may differ before it counts as skewed: of an item with tens of events
    a second not every order in which a fold may have taken the last ones is tried."""
    release_timeout_ms: int = Field(default=5_000, gt=0)
    """Time for the last flush when partitions are revoked or the process stops; what is not written is the
    next owner's to read."""
