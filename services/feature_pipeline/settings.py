"""Settings of the feature pipeline."""

from __future__ import annotations

from pydantic import Field

from services.contract.feature_sets import WORLD
from services.runtime.settings import FeatureSetName, GrpcServerSettings, ProcessSettings


class FeaturePipelineSettings(ProcessSettings):
    """Both stages: how much they take at once, keep, and look back."""

    name: str = "feature_pipeline"
    """Name in logs."""
    grpc: GrpcServerSettings = GrpcServerSettings(port=7057)
    """The service port, the admin port and their limits."""
    split_records: int = Field(default=500, gt=0)
    """Origin records per round of stage 1."""
    split_pause_ms: int = Field(default=50, ge=0)
    """Pause after a round that found records: fuller rounds cost less, and features are not that urgent."""
    split_commit_ms: int = Field(default=250, gt=0)
    """Stage 1 commits no more often: what it reads again after a crash is dropped by the marks."""
    batch_parts: int = Field(default=250, gt=0, le=1_000)
    """View events per record of feature-events: a record costs as much as ten of them."""
    max_batches_in_flight: int = Field(default=64, gt=0)
    """Records sent and not yet acknowledged; well below the producer's own limit."""
    max_catalog_items: int = Field(default=5_000_000, gt=0)
    """Categories kept in memory; items beyond count as of unknown category."""
    fold_events: int = Field(default=2_000, gt=0)
    """View events per write of stage 2: Redis does nothing else while it applies one (some 10 ms)."""
    fold_interval_ms: int = Field(default=500, gt=0)
    """Events gather so long before they are written, so that a popular item is written once."""
    fold_pause_ms: int = Field(default=10, ge=0)
    """Pause between two looks at Kafka while events gather; a barrier waits this long at most."""
    feature_set: FeatureSetName = WORLD
    """Which views are folded: a name of contract.feature_sets."""
    cache_states: int = Field(default=40_000, gt=0)
    """States kept in memory per feature-events partition, some 0.7 KB each; the rest is read back from Redis.
    """
    retry_ms: int = Field(default=200, gt=0)
    """Between tries while Redis or Kafka is away."""
