"""Flink SQL's side of bench-join: the jobs, measured as ours is.

A job's CPU seconds are those of the task manager from the job's submission to its end, less what the same job
takes on empty topics. Before the measured rounds each job reads the whole log a few times, unmeasured: the
JVM compiles what runs often. Its compiler's threads are left out all the same, since every job compiles its
own generated code anew, which one that runs for days does not notice.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.flink_cluster import FlinkCluster
from benchmarks.join_figures import Round, net_cpu_s
from benchmarks.join_log import FEATURES, SHOWN, TOPIC
from benchmarks.join_rows import Row, committed_rows
from local.topic_setup import create_topics
from services.contract import topics
from services.runtime.settings import KafkaSettings


@dataclass(frozen=True)
class Job:
    """A file of flink_sql/src/main/resources/sql."""

    reads_snapshots: bool
    # Rows that enter its left interval join, of one request with one click.
    join_rows: int


JOBS = {
    "plain": Job(reads_snapshots=True, join_rows=SHOWN + 1),
    "items": Job(reads_snapshots=True, join_rows=SHOWN + 1),
    "requests": Job(reads_snapshots=True, join_rows=2),
    "labels": Job(reads_snapshots=False, join_rows=SHOWN + 1),
}
# The fastest of those that write our rows whatever the log is (requests does not).
PEER = "items"
EMPTY = "empty-"


class Flink:
    """A cluster whose jobs read the log from its beginning to its end."""

    def __init__(
        self, folder: Path, bootstrap: str, window_s: int, bound_s: int, checkpoint_s: float
    ) -> None:
        self._bootstrap = bootstrap
        self._values = {
            "window_s": window_s,
            "bound_s": bound_s,
            "row_bytes": 4 * FEATURES.item_width,
            "execution.checkpointing.interval": f"{round(checkpoint_s * 1000)} ms",
        }
        self.idle_cpu_s: dict[str, float] = {}
        create_topics(
            KafkaSettings(bootstrap_servers=bootstrap),
            [replace(t, name=EMPTY + t.name) for t in TOPIC.values()],
        )
        self.cluster = FlinkCluster(folder, bootstrap)

    def warm_up(self, job: str, times: int) -> None:
        """Reads the log unmeasured, then measures the job without a log."""
        for number in range(times):
            self._run(job, self._output(job, f"warm-{number}"))
        before = self.cluster.cpu_s()
        self._run(job, self._output(job, "idle"), EMPTY)
        self.idle_cpu_s[job] = self.cluster.cpu_s() - before

    def round(self, job: str, number: int) -> tuple[Round, Counter[Row]]:
        """Reads the whole log; what it has committed."""
        output = self._output(job, str(number))
        began, before = time.monotonic(), self.cluster.cpu_s()
        self._run(job, output)
        cpu_s, wall_s = self.cluster.cpu_s() - before, time.monotonic() - began
        measured = Round(net_cpu_s(cpu_s, self.idle_cpu_s[job]), wall_s, self.cluster.peak_mb())
        return measured, committed_rows(self._bootstrap, output, {})[0]

    def _output(self, job: str, suffix: str) -> topics.Topic:
        output = replace(topics.SAMPLES, name=f"flink-{job}-{suffix}")
        create_topics(KafkaSettings(bootstrap_servers=self._bootstrap), [output])
        return output

    def _run(self, job: str, output: topics.Topic, inputs: str = "") -> None:
        self.cluster.run(job, output=output.name, inputs=inputs, **self._values)

    def stop(self) -> None:
        """Ends the cluster."""
        self.cluster.stop()
