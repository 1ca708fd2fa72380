"""Settings of ranking."""

from __future__ import annotations

import socket

from pydantic import Field, model_validator

from services.contract.feature_sets import WORLD
from services.runtime.settings import FeatureSetName, GrpcServerSettings, ProcessSettings


class Settings(ProcessSettings):
    """Scores candidates with the arms' models and logs what it scored."""

    name: str = "ranking"
    """Name in logs and as Kafka client id."""
    grpc: GrpcServerSettings = GrpcServerSettings(port=7054)
    """The service port, the admin port and their limits."""
    replica: str = Field(default_factory=socket.gethostname)
    """Names this process in provenance and heartbeats. Default: the host's name."""
    feature_set: FeatureSetName = WORLD
    """The features that every request carries; feature-views says what is served behind them
    (contract.view_growth)."""
    model_store_uri: str = "out/model-store"
    """Root of the model store; manifests named relative to it are found there."""
    trusted_keys_file: str = ""
    """PEM file of the public keys whose manifests are loaded; empty = signatures are not checked."""
    arms: tuple[str, ...] = ()
    """Arms to load; empty loads every arm of model-releases. Each holds a full state of its own."""
    default_arm: str = "online"
    """Serves requests that name no arm; the process is SERVING when it is loaded."""
    threads: int = Field(default=1, ge=1, le=64)
    """Torch's threads. One per replica scores 1,000 rows in few ms and leaves the other cores to other
    replicas."""
    max_candidates: int = Field(default=10_000, ge=1, le=10_000)
    """Rows of one request; above it the request is refused."""
    max_queue: int = Field(default=256, ge=1)
    """Requests waiting for the scoring thread: about a second of work. What waits beyond its own deadline is
    dropped unscored; this only bounds the memory and the wait of callers with long deadlines."""
    default_deadline_ms: int = Field(default=1_000, gt=0)
    """For callers that set none."""
    max_deadline_ms: int = Field(default=10_000, gt=0)
    """A longer deadline is cut to this, as the gateway's."""
    base_retry_ms: int = Field(default=1_000, gt=0)
    """Pause before a base that could not be loaded, or a log that did not help, is tried again."""
    load_wait_ms: int = Field(default=30_000, gt=0)
    """How long a start waits for the other arms when the default arm is loaded already."""
    load_share: float = Field(default=0.1, gt=0, le=1)
    """Of one core, while requests are served: what reading and checking a newer model may take (a million
    rows: 12 s). A first one, a repair and a way back to an older one are read as fast as it goes."""
    heartbeat_idle_ms: int = Field(default=200, gt=0)
    """A partition of feature-snapshots without a record for this long gets a heartbeat."""
    max_snapshots_pending: int = Field(default=2_000, ge=1)
    """Snapshots not yet acknowledged (30 s of traffic); beyond it, or while Kafka is away, new ones are
    dropped and counted."""

    slim_snapshots: bool = False
    """Writes every snapshot a second time, to feature-snapshots-slim, for a joiner of the scheme label-first:
    batch columns by the name of a table in the lake instead of their values."""
    lake_uri: str = "out/lake"
    """Folder or object-store URI of the lake, where those tables are. Without one the columns travel."""
    view_poll_ms: int = Field(default=5_000, gt=0)
    """How often a newer table is looked for; items that are not in the one at hand travel with values."""

    @model_validator(mode="after")
    def _default_arm_is_loaded(self) -> Settings:
        if self.arms and self.default_arm not in self.arms:
            raise ValueError(f"arms {self.arms} must contain the default_arm {self.default_arm}")
        return self
