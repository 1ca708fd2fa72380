"""Settings of recall."""

from __future__ import annotations

from pydantic import Field, model_validator

from services.contract.feature_sets import WORLD
from services.recall.sources import Source
from services.runtime.settings import FeatureSetName, Group, GrpcServerSettings, ProcessSettings


class Shares(Group):
    """The part of an answer that each source is meant to fill; 0 switches a source off."""

    vector: float = Field(default=0.5, ge=0, le=1)
    """The model's own opinion: half of the answer."""
    popular: float = Field(default=0.2, ge=0, le=1)
    """What everybody clicks now."""
    fresh: float = Field(default=0.1, ge=0, le=1)
    """New items, which no model and no count knows yet."""
    co_click: float = Field(default=0.1, ge=0, le=1)
    """What was clicked together with the user's last clicks."""
    exploration: float = Field(default=0.1, ge=0, le=1)
    """Random items, without which the log would only confirm what the loop believes already."""

    @model_validator(mode="after")
    def _fit(self) -> Shares:
        total = sum(self.of(source) for source in Source)
        if not 0 < total <= 1 + 1e-9:
            raise ValueError(f"the shares add up to {total:g}: above 0, at most 1")
        return self

    def of(self, source: Source) -> float:
        """The share of one source."""
        return float(getattr(self, source.label))


class RecallSettings(ProcessSettings):
    """Recall: how much of each source, and how long one may take."""

    name: str = "recall"
    """Name in logs and as Kafka client id."""
    grpc: GrpcServerSettings = GrpcServerSettings(port=7052)
    """The service port, the admin port and their limits."""
    shares: Shares = Shares()
    """How the answer is divided among the sources."""
    feature_set: FeatureSetName = WORLD
    """The feature set of which a view says a user's last clicks (contract.feature_sets)."""
    model_store_uri: str = "out/model-store"
    """Folder or object store of the bases that model-releases names."""
    trusted_keys_file: str = ""
    """PEM file of the public keys whose manifests are loaded; empty = signatures are not checked."""
    arm: str = "online"
    """The arm whose item and user vectors are served."""
    default_deadline_ms: int = Field(default=200, gt=0)
    """For a request without a deadline."""
    max_deadline_ms: int = Field(default=5_000, gt=0)
    """A longer deadline is cut to this."""
    reserve_ms: int = Field(default=10, ge=0)
    """Kept back from the sources for merging and for the way back."""
    vectors_budget_ms: int = Field(default=100, gt=0)
    """A search takes 1 to 2 ms; one that has waited this long on its thread is given up."""
    max_reads: int = Field(default=256, gt=0)
    """Reads that may wait for Redis at once; one beyond is refused, and its request has no co-clicks."""
    co_click_budget_ms: int = Field(default=50, gt=0)
    """At most two round trips to Redis: later than this the other sources fill in."""
    co_click_per_item: int = Field(default=30, gt=0)
    """Neighbours read of each of the user's last clicked items."""
    co_click_age_ms: int = Field(default=10_000, gt=0)
    """An item's neighbours are read again when they are this old: many users clicked the same items."""
    co_click_lists: int = Field(default=20_000, gt=0)
    """Items whose neighbours are kept, half a kilobyte each."""
    popular_keep: int = Field(default=1_000, gt=0)
    """Items read of each hop and kept in all: more than twice the share of the usual 1,000 candidates."""
    popular_refresh_ms: int = Field(default=1_000, gt=0)
    """Popularity moves in minutes; one small read a second is enough, and it tells whether Redis is there."""
    popular_stale_ms: int = Field(default=5_000, gt=0)
    """An older list is still proposed, and named as stale."""
    popular_half_life_ms: int = Field(default=1_200_000, gt=0)
    """A click loses half its weight in this much event time: two hops."""
    fresh_keep: int = Field(default=1_000, gt=0)
    """Newest items proposed at most."""
    vectors_wait_ms: int = Field(default=20_000, ge=0)
    """Without any release recall serves after this, the source named as unavailable: it has others."""
    vectors_stale_ms: int = Field(default=10_000, gt=0)
    """A model that has been repairing its chain for longer is named as stale."""
    lists_from_items: int = Field(default=400_000, gt=0)
    """From so many items on a search looks into lists of near items instead of through everything: where the
    two cross by `make bench-scale`: 389,000 and 536,000 in two runs on two cores (1 to 2 ms)."""
    list_check_ms: int = Field(default=1_000, gt=0)
    """How often an answer out of lists is compared with one through everything (5 ms of another thread for a
    million items), and whether they are still good is looked at."""
    catalog_poll_records: int = Field(default=2_000, gt=0)
    """Records of the catalogue taken in between two requests: about 10 ms of work."""

    @model_validator(mode="after")
    def _leaves_time(self) -> RecallSettings:
        if self.reserve_ms >= self.default_deadline_ms:
            raise ValueError(f"reserve_ms={self.reserve_ms} leaves nothing of default_deadline_ms")
        return self
