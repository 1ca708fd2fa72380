"""What the joiner counts, per partition."""

from __future__ import annotations

from collections import Counter as Counts

from services.contract.join import JoinTask
from services.runtime import telemetry

log = telemetry.get_logger("joiner")
_P = ["partition"]

RECORDS = telemetry.counter("joiner_records", "Records joined, by kind", [*_P, "kind"])
REPEATS = telemetry.counter("joiner_repeats", "Records suppressed as repeats, by input", [*_P, "input"])
REASONS = telemetry.counter("joiner_rejected", "Records on late-events and dead-letters", [*_P, "reason"])
ITEMS = telemetry.counter(
    "joiner_items",
    "Impressed items: positive, negative, or the reason why neither; and corrections",
    [*_P, "outcome"],
)
NOT_SHOWN = telemetry.counter("joiner_not_shown", "Snapshots whose list was never shown (normal)", _P)
EVICTED = telemetry.counter("joiner_evicted_events", "Events given up because the state was full", _P)
BARRIERS = telemetry.counter("joiner_barriers", "Barriers by what became of them", [*_P, "outcome"])
HELD = telemetry.gauge("joiner_held_events", "Snapshots, impressions and actions in memory", _P)
HELD_BYTES = telemetry.gauge("joiner_held_bytes", "Payload bytes in memory", _P)
HELD_MAX = telemetry.gauge("joiner_held_events_max", "Most of the same since the process began", _P)
HELD_BYTES_MAX = telemetry.gauge("joiner_held_bytes_max", "Most payload bytes since the process began", _P)
GATED = telemetry.gauge("joiner_gated_records", "Snapshots read that wait for their labels", _P)
OPEN = telemetry.gauge("joiner_open_impressions", "Impressions whose window is open", _P)
PENDING = telemetry.gauge("joiner_pending_actions", "Actions waiting for their impression", _P)
WATERMARK = telemetry.gauge("joiner_watermark_seconds", "Watermark of the task (event time)", _P)
BEHIND = telemetry.gauge(
    "joiner_watermark_behind_seconds", "How far an input's event clock is behind the furthest", [*_P, "input"]
)
REBUILDS = telemetry.counter(
    "joiner_rebuilds", "Times that a task was built from committed positions", ["why"]
)
FENCED = telemetry.counter("joiner_fenced", "Times that a newer owner took a partition over", _P)
REPLAYED = telemetry.counter("joiner_replayed_records", "Records replayed without output", _P)
GAPS = telemetry.counter("joiner_offset_gaps", "Input offsets that never came", [*_P, "input"])
UNREADABLE = telemetry.counter("joiner_positions_lost", "Committed positions without a usable state", ["why"])
PAUSED = telemetry.counter("joiner_pauses", "Times that reading waited", ["why"])
LATE_SECONDS = telemetry.histogram(
    "joiner_late_seconds",
    "How far late events were below the watermark (event time)",
    ["input"],
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 3600, 86400),
)
EMIT_SECONDS = telemetry.histogram(
    "joiner_emit_seconds", "From the append of the deciding record to its output's commit", ["outcome"]
)
TRANSACTION_SECONDS = telemetry.histogram("joiner_transaction_seconds", "Duration of a transaction")
TRANSACTION_RECORDS = telemetry.histogram(
    "joiner_transaction_records", "Records in a transaction", buckets=(0, 1, 3, 10, 30, 100, 300, 1000, 10000)
)
WRITTEN_RECORDS = telemetry.counter("joiner_written_records", "Records committed to outputs", ["topic"])
WRITTEN_BYTES = telemetry.counter("joiner_written_bytes", "Bytes of their values", ["topic"])
VIEW_TABLES = telemetry.counter(
    "joiner_view_tables", "Tables of batch features: read, lost, or failed to be read", ["outcome"]
)
LOOKUPS = telemetry.counter("joiner_lookups", "Calls to the feature server by what came of them", ["outcome"])
LOOKUP_SECONDS = telemetry.histogram("joiner_lookup_seconds", "Duration of a call that gave features")


class Peak:
    """The most that one partition has held, through all its rebuilds."""

    def __init__(self, partition: int) -> None:
        self._p = str(partition)
        self.events = 0
        self.bytes = 0

    def note(self, events: int, size: int) -> None:
        """So much is held now."""
        if events > self.events:
            self.events = events
            HELD_MAX.labels(self._p).set(events)
        if size > self.bytes:
            self.bytes = size
            HELD_BYTES_MAX.labels(self._p).set(size)


class TaskMetrics:
    """Carries one task's counters into the metrics, as differences since the last time."""

    def __init__(self, partition: int) -> None:
        self._p = str(partition)
        self._last: dict[str, Counts[str]] = {}

    def update(self, task: JoinTask, held_bytes: int, gated: int) -> None:
        """To be called after each commit. ``held_bytes`` and ``gated`` (records) count what waits before the
        join too."""
        stats, p = task.stats, self._p
        for counter, name, counts in (
            (RECORDS, "records", stats.records),
            (REPEATS, "repeats", stats.repeats),
            (REASONS, "reasons", stats.reasons),
            (ITEMS, "items", stats.items),
            (
                BARRIERS,
                "barriers",
                Counts(
                    passed=stats.barriers_passed,
                    repeated=stats.barriers_repeated,
                    dropped=stats.barriers_dropped,
                ),
            ),
        ):
            for key, value in self._grown(name, counts).items():
                counter.labels(p, str(key)).inc(value)
        for counter, name, value in (
            (NOT_SHOWN, "not_shown", task.not_shown),
            (EVICTED, "evicted", stats.evicted_events),
        ):
            counter.labels(p).inc(self._grown(name, Counts(n=value)).get("n", 0))
        HELD.labels(p).set(task.held_events + gated)
        HELD_BYTES.labels(p).set(held_bytes)
        GATED.labels(p).set(gated)
        OPEN.labels(p).set(task.open_impressions)
        PENDING.labels(p).set(task.pending_actions)
        clocks = [task.inputs[source] for source in task.sources]
        furthest = max(clock.clock_us for clock in clocks)
        if task.watermark_us > 0:
            WATERMARK.labels(p).set(task.watermark_us / 1e6)
        for clock in clocks:
            if clock.clock_us > 0:
                BEHIND.labels(p, clock.source.name.lower()).set((furthest - clock.clock_us) / 1e6)

    def _grown(self, name: str, counts: Counts[str]) -> Counts[str]:
        grown = counts - self._last.get(name, Counts())
        self._last[name] = Counts(counts)
        return grown
