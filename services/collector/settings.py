"""Settings of the collector."""

from __future__ import annotations

from pydantic import Field

from services.runtime.settings import Group, GrpcServerSettings, ProcessSettings


class EventTimeSettings(Group):
    """Which event times are believed. Bounds are event time, against the run clock."""

    future_bound_ms: int = Field(default=60_000, gt=0)
    """Clocks of clients run ahead by seconds, not minutes; one event from the future would make all others
    late.
    """
    past_bound_ms: int = Field(default=86_400_000, gt=0)
    """A day: phones come back online; older events could not be joined any more."""
    jump_bound_ms: int = Field(default=400 * 86_400_000, gt=0)
    """Instead of future_bound_ms when event time runs faster than the wall's or moves only with events."""


class CollectorSettings(ProcessSettings):
    """Everything that the collector can be told."""

    name: str = "collector"
    """Name in logs and as Kafka client id."""
    grpc: GrpcServerSettings = GrpcServerSettings(port=7055)
    """The service port, the admin port and their limits."""
    event_time: EventTimeSettings = EventTimeSettings()
    """Which event times are believed."""
    ack_timeout_ms: int = Field(default=5_000, gt=0)
    """Longest wait for Kafka's acknowledgement, for callers without a deadline (and at most theirs)."""
    ack_reserve_ms: int = Field(default=20, ge=0)
    """Kept back from the caller's deadline, so that UNAVAILABLE still reaches it."""
    max_in_flight_events: int = Field(default=5_000, gt=0)
    """Events written and not yet acknowledged; a batch that does not fit is refused whole."""
    stream_window: int = Field(default=16, gt=0)
    """Batches of one stream that may wait for their acknowledgement before the next one is read."""
    heartbeat_idle_ms: int = Field(default=200, gt=0)
    """A partition silent for this long gets a heartbeat: bounds how long a join waits for an idle input."""
    readiness_ms: int = Field(default=250, gt=0)
    """How often health is set from the state of the connection to Kafka."""
