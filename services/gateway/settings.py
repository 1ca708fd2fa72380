"""Settings of the gateway."""

from __future__ import annotations

from pydantic import Field, model_validator

from services.contract.feature_sets import WORLD
from services.contract.times import MICROS
from services.gateway.budget import Shares
from services.gateway.validation import TimeBounds
from services.runtime.settings import FeatureSetName, GrpcServerSettings, ProcessSettings

_DAY_MS = 86_400_000


class GatewaySettings(ProcessSettings):
    """The gateway: where its dependencies are, and how long it waits for each."""

    name: str = "gateway"
    """Name in logs."""
    grpc: GrpcServerSettings = GrpcServerSettings(port=7051)
    """The service port, the admin port and their limits."""
    recall_target: str = "127.0.0.1:7052"
    """Address of recall: host:port or dns:///name:port."""
    feature_target: str = "127.0.0.1:7053"
    """Address of the feature server."""
    ranking_target: str = "127.0.0.1:7054"
    """Address of ranking."""
    feature_set: FeatureSetName = WORLD
    """The features that every answer has, and whose defaults stand in for a missing one; the feature server
    may serve added ones behind them (contract.feature_sets)."""
    default_deadline_ms: int = Field(default=500, gt=0)
    """For a request without a deadline: a list that comes later is of no use to anybody."""
    max_deadline_ms: int = Field(default=10_000, gt=0)
    """A longer deadline is cut to this: a hanging dependency must not pile up requests."""
    reserve_ms: int = Field(default=10, ge=0)
    """Kept back from the dependencies for building the answer and for its way to the client."""
    recall_share: float = Field(default=0.35, gt=0, le=1)
    """Part of the time left that recall may use."""
    feature_share: float = Field(default=0.4, gt=0, le=1)
    """Part of the time then left that the feature server may use."""
    ranking_share: float = Field(default=0.9, gt=0, le=1)
    """Part of the time then left that ranking may use; the rest lets an unscored answer still be in time."""
    breaker_failures: int = Field(default=3, gt=0)
    """Failures in a row after which a dependency is skipped: fewer would trip over one lost connection."""
    breaker_pause_ms: int = Field(default=1_000, gt=0)
    """How long it is skipped before one request tries it again."""
    breaker_timeout_ms: int = Field(default=50, gt=0)
    """A shorter timeout says more about the client's deadline than about the dependency: no failure."""
    fallback_items: int = Field(default=2_000, gt=0)
    """Items of each of the two fallback lists: twice the usual number of candidates."""
    fallback_refresh_ms: int = Field(default=100, ge=0)
    """The pool learns from recall's answers no more often: it is the hot path."""
    past_bound_ms: int = Field(default=_DAY_MS, gt=0)
    """occurred_at may be this far behind the run's clock."""
    future_bound_ms: int = Field(default=60_000, gt=0)
    """occurred_at may be this far ahead of the run's clock."""
    replay_future_bound_ms: int = Field(default=400 * _DAY_MS, gt=0)
    """The same at time_scale 0, where the clock stands still between the events of a log with holes."""
    assignment_wait_ms: int = Field(default=2_000, ge=0)
    """How long a start waits to know which arms share the users; without Kafka all get the default arm, until
    it is there."""
    ready_wait_ms: int = Field(default=20_000, ge=0)
    """After this the gateway serves with recall alone: unscored answers are better than none."""

    @model_validator(mode="after")
    def _leaves_time(self) -> GatewaySettings:
        if self.reserve_ms >= self.default_deadline_ms:
            raise ValueError(f"reserve_ms={self.reserve_ms} leaves nothing of default_deadline_ms")
        if self.default_deadline_ms > self.max_deadline_ms:
            raise ValueError(f"default_deadline_ms={self.default_deadline_ms} is above max_deadline_ms")
        return self

    def shares(self) -> Shares:
        """How the time is divided."""
        return Shares(self.recall_share, self.feature_share, self.ranking_share)

    def time_bounds(self, run_now_us: int | None) -> TimeBounds:
        """What occurred_at may be when the run's clock shows this."""
        future_ms = self.future_bound_ms if self.time_scale > 0 else self.replay_future_bound_ms
        to_us = MICROS // 1000
        return TimeBounds(run_now_us, past_us=self.past_bound_ms * to_us, future_us=future_ms * to_us)
