"""Settings of the joiner."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rec.events.v1 import events_pb2 as ev
from services.contract.feature_sets import WORLD
from services.contract.join_config import Emission, JoinConfig, LabelRule, Reducer, Scheme
from services.contract.topics import OUTPUT_SUFFIX
from services.runtime.settings import FeatureSetName, Group, GrpcServerSettings, ProcessSettings


class LabelSettings(Group):
    """What one kind of action makes of a shown item."""

    kind: Literal["click", "like", "hide", "purchase"]
    """The kind, as in rec.events.v1.ActionKind."""
    label: float = Field(default=1.0, gt=0.0, le=1.0)
    """The label that it gives: how good a sign it is, 1 = the best."""
    window_ms: int | None = Field(default=None, gt=0)
    """Event time after the impression in which it counts: purchases come later than clicks. Default: the
    join's window_ms."""
    priority: int = Field(default=0, ge=0)
    """Overrides the label by actions of lower priority: a purchase says more than any number of clicks."""

    def rule(self) -> LabelRule:
        """As the join takes it."""
        kind = ev.ActionKind.Value(f"ACTION_KIND_{self.kind.upper()}")
        window_us = None if self.window_ms is None else self.window_ms * 1000
        return LabelRule(kind, self.label, window_us, self.priority)


class Settings(ProcessSettings):
    """Joins snapshots, impressions and actions into training samples."""

    name: str = "joiner"
    """Name in logs and as Kafka client id."""
    grpc: GrpcServerSettings = GrpcServerSettings(port=7056)
    """The service port, the admin port and their limits."""
    group_id: str = "joiner"
    """Consumer group; also the prefix of the transactional ids, so that two groups do not fence each
    other."""
    scheme: Scheme = "stream"
    """How samples are built. stream: snapshots wait for labels. label-first: labels wait, snapshots
    (feature-snapshots-slim) are read when all labels are in. lookup: no snapshots, features are read when the
    labels are in; this leaks, and is here to be measured."""
    output_suffix: str = Field(default="", pattern=f"^{OUTPUT_SUFFIX.pattern}$")
    """Appended to the names of the topics written (samples, late-events, dead-letters), so that joiners of
    several schemes run side by side; give each a group_id too. Empty, or - and 1 to 32 of a-z, 0-9 and -."""
    window_ms: int = Field(default=20_000, gt=0)
    """Event time after an impression in which an action labels it; then the rest is negative."""
    show_within_ms: int | None = Field(default=None, gt=0)
    """Event time from a request to its impression in which its snapshot is kept. Default: window_ms."""
    bound_ms: int = Field(default=2_000, ge=0)
    """Disorder bound: wall time, multiplied by time_scale; event time when time_scale is 0. Too small makes
    events late, too large delays negatives.
    """
    labels: tuple[LabelSettings, ...] = (LabelSettings(kind="click"),)
    """The kinds of action that label an item, as JSON: [{"kind": "click"}, {"kind": "purchase", "label": 1.0,
    "window_ms": 20000, "priority": 1}]. Actions of other kinds are answered with no_label_rule."""
    reducer: Reducer = "any"
    """Label of an item with several actions of the same priority: any = the first one's, said at once when
    all priorities are equal; max = the largest; sum = their sum, at most 1. A label that may still change
    waits for the window's end, unless emission is correcting."""
    emission: Emission = "final"
    """final: each row once, negatives at the window's end. correcting: negatives early, numbered corrections
    when actions come: fresher, but needs a trainer with a loss for delayed feedback."""
    early_negative_ms: int = Field(default=0, ge=0)
    """Only with correcting: event time after the impression at which an unlabelled row is said as a negative.
    Longer = fewer corrections, later negatives. 0 = as soon as the snapshot is in and the watermark is
    above the impression."""
    negative_rate: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of the negatives kept, chosen by hash of the sample id: less to train on. It travels on them as
    sample_rate, so that training or serving can correct for it."""
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
    gc_interval_ms: int = Field(default=60_000, gt=0)
    """Python's cyclic garbage is collected this often, and at no other time: the state has no cycles, and
    walking over it took a sixth of the join."""
    retry_ms: int = Field(default=500, gt=0)
    """Pause before a partition whose transaction failed is rebuilt from what is committed."""
    fenced_retry_ms: int = Field(default=60_000, gt=0)
    """A fenced partition waits for the group's word; without any for this long, whatever fenced it was no
    member of the group, and the partition is taken back.
    """
    commit_timeout_ms: int = Field(default=5_000, gt=0)
    """Time for the last transaction when partitions are revoked or the process stops."""
    feature_set: FeatureSetName = WORLD
    """label-first: the features that snapshots carry (contract.feature_sets)."""
    lake_uri: str = "out/lake"
    """label-first: folder or object-store URI of the lake, where the named batch features are."""
    max_gated_records: int = Field(default=32, gt=0)
    """label-first: snapshots read and not yet due, per partition. The log is where they wait; this only makes
    a read worth while."""
    max_view_tables: int = Field(default=8, gt=0)
    """label-first: tables of batch features in memory, the least recently used leave. 20 bytes an item each;
    ranking names the newest, so more than two are needed only for a replay over a long time."""
    feature_target: str = "127.0.0.1:7053"
    """lookup: address of the feature server: host:port or dns:///name:port."""
    lookup_timeout_ms: int = Field(default=1_000, gt=0)
    """lookup: one call; then it is made again, after retry_ms, for as long as it takes."""
    max_lookups: int = Field(default=8, gt=0)
    """lookup: calls at once, per partition."""

    def join_config(self) -> JoinConfig:
        """The rules; InvalidInput when they contradict each other."""
        return JoinConfig(
            window_us=self.window_ms * 1000,
            bound_us=int(self.bound_ms * 1000 * (self.time_scale or 1.0)),
            show_within_us=None if self.show_within_ms is None else self.show_within_ms * 1000,
            max_held_events=self.max_held_events,
            labels=tuple(label.rule() for label in self.labels),
            reducer=self.reducer,
            emission=self.emission,
            early_negative_us=self.early_negative_ms * 1000,
            negative_rate=self.negative_rate,
            scheme=self.scheme,
        )
