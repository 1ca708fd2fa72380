"""What the online trainer exports to Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

from services.contract import topics
from services.contract.times import MICROS
from services.runtime.telemetry import STAGE_BUCKETS, counter, gauge, histogram, observe_all
from trainer.core import Plan, TrainerCore

_FIGURES = (
    "evaluated_rows", "base_rate", "auc_served", "auc_candidate", "log_loss_served", "log_loss_candidate",
)  # fmt: skip


class Metrics:
    """Of one lineage (``2/online``); the counts are those of the process."""

    def __init__(self, lineage: str) -> None:
        self.step_seconds = histogram("trainer_train_seconds", "Learning from one run of records.")
        self.publish_seconds = histogram(
            "trainer_publish_seconds", "A delta from sealing to acknowledgement."
        )
        self._wait_seconds = histogram(
            "trainer_wait_seconds",
            "From a sample's sending by the joiner to the end of the training that took it in.",
            ["lineage"],
            buckets=STAGE_BUCKETS,
        ).labels(lineage)
        self._held_seconds = histogram(
            "trainer_held_seconds",
            "From a training step to the acknowledgement of the delta that holds it.",
            ["lineage"],
            buckets=STAGE_BUCKETS,
        ).labels(lineage)
        self.seal_seconds = histogram(
            "trainer_seal_seconds", "A delta's rows gathered, packed and hashed.", ["lineage"]
        ).labels(lineage)
        self.poll_failures = counter("trainer_poll_failures", "Polls of samples that failed.")
        self._rows = counter("trainer_rows", "Sample rows trained.")
        self._corrections = counter(
            "trainer_corrections", "Positives trained after their negative.", ["lineage"]
        ).labels(lineage)
        self._dead_letters = counter("trainer_dead_letters", "Records sent to dead-letters.", ["topic"])
        self._events = counter("trainer_events", "What the core counts, by name.", ["name"])
        self._deltas = counter("trainer_deltas", "Deltas acknowledged.")
        self._delta_rows = counter("trainer_delta_rows", "Rows in acknowledged deltas.")
        self._delta_bytes = counter("trainer_delta_bytes", "Bytes of acknowledged deltas.")
        self._sequence = gauge(
            "trainer_sequence", "Sequence of the last acknowledged delta.", ["lineage"]
        ).labels(lineage)
        self._touched = gauge("trainer_touched_ids", "Ids that wait for the next delta.", ["lineage"]).labels(
            lineage
        )
        self._pending = gauge("trainer_pending_ids", "Ids seen but not admitted.", ["lineage"]).labels(
            lineage
        )
        self._table = gauge("trainer_table_rows", "Rows of a table.", ["lineage", "table"])
        self._quality = gauge(
            "trainer_progressive", "Rolling figures of progressive validation.", ["lineage", "figure"]
        )
        self._lineage = lineage
        self._seen: dict[str, int] = {}

    def trained(self, rows: int, core: TrainerCore) -> None:
        """After one run of records; called while the core rests."""
        self._rows.inc(rows)
        corrections = "corrections_trained"
        self._corrections.inc(core.counts[corrections] - self._seen.get(corrections, 0))
        for name, count in core.counts.items():
            grown = count - self._seen.get(name, 0)
            if grown > 0:
                self._events.labels(name).inc(grown)
                self._seen[name] = count
        self._touched.set(len(core.touched))
        self._pending.set(sum(len(table.pending) for table in core.state.tables.values()))
        for name, table in core.state.tables.items():
            self._table.labels(self._lineage, name).set(len(table))

    def waited(self, sent_us: Sequence[int], now_us: int) -> None:
        """Records trained by now, by when each was sent."""
        observe_all(self._wait_seconds, [(now_us - one) / MICROS for one in sent_us])

    def published(self, plan: Plan, now_us: int) -> None:
        """After an acknowledgement."""
        held = [(now_us - step.finished_at_us) / MICROS for step in plan.header.steps]
        observe_all(self._held_seconds, held)
        self._dead_letters.labels(topics.SAMPLES.name).inc(len(plan.rejected))
        self._deltas.inc()
        self._delta_rows.inc(plan.rows)
        self._delta_bytes.inc(len(plan.value))
        self._sequence.set(plan.header.sequence)

    def figures(self, figures: dict[str, float]) -> None:
        """The rolling figures."""
        for name in _FIGURES:
            self._quality.labels(self._lineage, name).set(figures[name])
