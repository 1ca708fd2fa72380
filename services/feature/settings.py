"""Settings of the feature server."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from services.contract.feature_sets import WORLD
from services.feature.query import MAX_ITEMS
from services.runtime.settings import FeatureSetName, GrpcServerSettings, ProcessSettings


def _none_or_a_request(items: int) -> int:
    if 0 < items < MAX_ITEMS:
        raise ValueError(f"0, or at least the {MAX_ITEMS} items of the largest request")
    return items


class FeatureSettings(ProcessSettings):
    """The feature server: how long it waits for Redis before it answers defaults."""

    name: str = "feature"
    """Name in logs."""
    grpc: GrpcServerSettings = GrpcServerSettings(port=7053)
    """The service port, the admin port and their limits."""
    default_deadline_ms: int = Field(default=100, gt=0)
    """For a call without a deadline: what a ranking may usefully wait for features."""
    max_deadline_ms: int = Field(default=10_000, gt=0)
    """A longer deadline is cut to this: a hanging Redis must not pile up calls."""
    store_share: float = Field(default=0.8, gt=0, le=1)
    """Part of the time left that Redis may use; the rest lets defaults still arrive in time."""
    max_reads: int = Field(default=128, gt=0)
    """Reads waiting for Redis at once; more would only miss their deadlines."""
    feature_set: FeatureSetName = WORLD
    """Which features are answered, by name (contract.feature_sets); all processes of a loop have the same.
    Views that were added stand behind them (contract.view_growth)."""
    follow_views: bool = True
    """Serve added views as feature-views says; without it the named set alone, and no Kafka."""
    views_wait_ms: int = Field(default=20_000, ge=0)
    """How long a start waits for Kafka to say which views are served; then the named set is until it does."""
    near_items: Annotated[int, AfterValidator(_none_or_a_request)] = Field(default=100_000, ge=0)
    """Items kept in this process with their computed columns, 600 bytes each with the views of the world; 0
    reads every item from Redis each time. At least the 10,000 of the largest request. Written items are
    dropped at once."""
    near_age_ms: int = Field(default=60_000, gt=0)
    """No kept item is older, even if Redis failed to say that it was written. Each is read again this often,
    written or not."""
    breaker_failures: int = Field(default=3, gt=0)
    """Failures in a row after which Redis is skipped: one lost connection is no failure of Redis."""
    breaker_pause_ms: int = Field(default=500, gt=0)
    """How long it is skipped before one request tries it again."""
    breaker_timeout_ms: int = Field(default=20, gt=0)
    """A shorter timeout says more about the caller's deadline than about Redis: no failure."""
    max_barrier_waits: int = Field(default=64, gt=0)
    """Callers waiting for barriers at once; a replay needs one."""
    barrier_poll_ms: int = Field(default=250, gt=0)
    """A barrier whose announcement was lost with a connection is found by looking this often."""
    ready_wait_ms: int = Field(default=5_000, ge=0)
    """After this the server serves without Redis: defaults are better than nothing."""
