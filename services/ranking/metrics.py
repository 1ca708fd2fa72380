"""What ranking counts."""

from __future__ import annotations

from services.runtime.telemetry import STAGE_BUCKETS, counter, gauge, histogram


class Metrics:
    """All of ranking's own metrics; the factories give the same ones again."""

    def __init__(self) -> None:
        self.score_seconds = histogram(
            "ranking_score_seconds", "On the scoring thread, one request, all arms."
        )
        self.queue_seconds = histogram("ranking_queue_seconds", "Wait for the scoring thread.")
        self.candidates = counter("ranking_candidates", "Rows scored.", ["arm"])
        self.queued = gauge("ranking_queue", "Requests waiting for or on the scoring thread.")
        self.refused = counter("ranking_requests_refused", "Requests not scored.", ["reason"])
        self.degraded = counter("ranking_degraded_features", "Requests scored on default features.")
        self.columns_missing = counter(
            "ranking_columns_missing", "Scored with defaults for columns that were not served.", ["arm"]
        )
        self.shadow_missing = counter("ranking_shadow_missing", "Shadow arms asked for and not loaded.")
        self.generation = gauge("ranking_generation", "Generation served.", ["arm"])
        self.sequence = gauge("ranking_sequence", "Sequence served.", ["arm"])
        self.staleness = gauge("ranking_staleness_seconds", "Age of the newest parameters served.", ["arm"])
        self.rows = gauge("ranking_rows", "Rows of all tables.", ["arm"])
        self.deltas = counter("ranking_deltas_applied", "Deltas applied.", ["arm"])
        self.delta_rows = counter("ranking_delta_rows_applied", "Rows of applied deltas.", ["arm"])
        self.delta_bytes = counter("ranking_delta_bytes_applied", "Bytes of applied deltas.", ["arm"])
        self.apply_seconds = histogram("ranking_apply_seconds", "On the scoring thread, one delta.", ["arm"])
        self.delta_seconds = histogram(
            "ranking_delta_seconds",
            "From a delta's append to its being in the model that serves.",
            ["arm"],
            buckets=STAGE_BUCKETS,
        )
        self.verdicts = counter(
            "ranking_delta_verdicts", "Judged records, by the chain's reason.", ["arm", "reason"]
        )
        self.resyncs = counter(
            "ranking_resyncs", "Resyncs begun, from the log or from a base.", ["arm", "source"]
        )
        self.bases = counter("ranking_bases_loaded", "Bases loaded.", ["arm"])
        self.base_failures = counter(
            "ranking_base_failures", "Bases that could not be loaded.", ["arm", "error"]
        )
        self.feed_failures = counter("ranking_feed_failures", "Polls of model-deltas that failed.", ["arm"])
        self.bad_releases = counter("ranking_bad_releases", "Records of model-releases that do not decode.")
        self.snapshots = counter("ranking_snapshots", "Snapshots acknowledged by Kafka.")
        self.snapshots_lost = counter("ranking_snapshots_lost", "Snapshots not written.", ["reason"])
        self.slim_snapshots = counter("ranking_slim_snapshots", "Slim snapshots acknowledged by Kafka.")
        self.slim_lost = counter("ranking_slim_snapshots_lost", "Slim snapshots not written.", ["reason"])
        self.slim_rows = counter(
            "ranking_slim_rows", "Rows of slim snapshots: batch columns named, or inline.", ["how"]
        )
        self.view_partition = gauge("ranking_view_partition", "Table of batch features that is named.")
        self.view_failures = counter("ranking_view_failures", "Looks for a newer table that failed.")
        self.dead_letters = counter("ranking_dead_letters", "Records sent to dead-letters.", ["topic"])
