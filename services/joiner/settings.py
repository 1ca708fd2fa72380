"""Settings of the joiner."""

from __future__ import annotations

from pydantic import Field

from services.contract.join_config import JoinConfig
from services.runtime.settings import GrpcServerSettings, ProcessSettings


class Settings(ProcessSettings):
    """Joins snapshots, impressions and actions into training samples."""

    name: str = "joiner"
    """Name in logs and as Kafka client id."""
    grpc: GrpcServerSettings = GrpcServerSettings(port=7056)
    """The service port, the admin port and their limits."""
    group_id: str = "joiner"
    """Consumer group; also the prefix of the transactional ids, so that two groups do not fence each
    other."""
    window_ms: int = Field(default=20_000, gt=0)
    """Event time after an impression in which an action labels it; then the rest is negative."""
    show_within_ms: int | None = Field(default=None, gt=0)
    """Event time from a request to its impression in which its snapshot is kept. Default: window_ms."""
    bound_ms: int = Field(default=2_000, ge=0)
    """Disorder bound: wall time, multiplied by time_scale; event time when time_scale is 0. Too small makes
    events late, too large delays negatives.
    """
    max_held_events: int = Field(default=2_000_000, gt=0)
    """Snapshots, impressions and actions in memory, per partition; beyond it the oldest leave undecided."""
    pause_held_events: int = Field(default=500_000, gt=0)
    """From here on inputs that are ahead of the slowest wait for it, unless it stays silent."""
    pause_silence_ms: int = Field(default=5_000, gt=0)
    """The slowest input is silent, not slow, when nothing came from it for this long."""
    commit_interval_ms: int = Field(default=500, gt=0)
    """Negatives and reason rows gathered into one transaction."""
    positive_commit_ms: int = Field(default=250, ge=0)
    """A positive waits at most this long for company: its way to the model is what freshness measures, and a
    transaction costs the broker six requests."""
    offsets_commit_ms: int = Field(default=1_000, gt=0)
    """Offsets that moved without any output are committed this often: they only shorten a replay."""
    max_transaction_records: int = Field(default=20_000, gt=0)
    """Outputs waiting for a commit, per partition; above it reading waits for the commit."""
    max_poll_records: int = Field(default=500, gt=0)
    """Records joined between two turns of the event loop."""
    retry_ms: int = Field(default=500, gt=0)
    """Pause before a partition whose transaction failed is rebuilt from what is committed."""
    fenced_retry_ms: int = Field(default=60_000, gt=0)
    """A fenced partition waits for the group's word; without any for this long, whatever fenced it was no
    member of the group, and the partition is taken back.
    """
    commit_timeout_ms: int = Field(default=5_000, gt=0)
    """Time for the last transaction when partitions are revoked or the process stops."""

    def join_config(self) -> JoinConfig:
        """The rules; InvalidInput when they contradict each other."""
        return JoinConfig(
            window_us=self.window_ms * 1000,
            bound_us=int(self.bound_ms * 1000 * (self.time_scale or 1.0)),
            show_within_us=None if self.show_within_ms is None else self.show_within_ms * 1000,
            max_held_events=self.max_held_events,
        )
