"""What a stream's samples and the batch join over the same log do not say alike, each with its reason code.

| code | what differs | explained |
|---|---|---|
| missing_in_stream | the batch decided an item, the stream has no sample of it | no |
| extra_in_stream | the stream has a sample that the batch does not know | no |
| duplicate_in_stream | a sample (or reason row) stands there more than once under one version | no |
| version_gap | the versions of a sample are not 0, 1, 2, ... | no |
| label_differs, time_differs | in the newest version: label; time of request, action, scoring | no |
| features_differ, score_differs, position_differs | in any version | no |
| model_differs, user_differs, rate_differs | in any version | no |
| reason_missing_in_stream, reason_extra_in_stream | a reason row of one side only | no |
| evicted, sampled_out | the stream says itself: its state was full, it keeps a share of negatives | yes |

The last two lines need the stream's own reason rows. A sample is known by partition, request, time of the
impression and item. Both sides must come from the same log read to the same place: a log at rest, or the
impressions before a time that both have passed (``between``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from services.lake import reconcile_sql
from services.lake.join import OfflineResult
from services.lake.packed import lists_of_ids
from services.lake.reconcile_sql import EVERY, EXPLAINED, NEWEST

CODES = (
    "missing_in_stream",
    "extra_in_stream",
    "duplicate_in_stream",
    "version_gap",
    *NEWEST,
    *EVERY,
    "reason_missing_in_stream",
    "reason_extra_in_stream",
    *EXPLAINED,
)
DIFFERENCES_SCHEMA = pa.schema(
    [
        pa.field("code", pa.string()),
        pa.field("partition", pa.int32()),
        pa.field("request_id", pa.string()),
        # Of samples.
        pa.field("impressed_us", pa.int64()),
        pa.field("item_id", pa.uint64()),
        # Of reason rows.
        pa.field("source", pa.int8()),
        pa.field("offset", pa.int64()),
        pa.field("detail", pa.string()),
    ]
)
_COLUMNS = ["partition", "request_id", "impressed_us", "item_id", "label_version"]
_COMPARED = [name for names in (NEWEST | EVERY).values() for name in names]
# Differences of each code that a report names.
EXAMPLES = 5


@dataclass(frozen=True)
class Reconciliation:
    """The differences (``DIFFERENCES_SCHEMA``, by code, partition, request) and what was compared."""

    differences: pa.Table
    # Rows of samples on both sides.
    streamed_rows: int
    offline_rows: int
    # Whether the stream's reason rows were there to be compared.
    reasons_compared: bool
    # Partition -> impressed items that the batch has decided, and of these what the stream has not explained.
    decided: dict[int, int]
    unexplained_items: dict[int, int]

    @property
    def counts(self) -> dict[str, int]:
        """Differences by code, every code named."""
        found = Counter(self.differences["code"].to_pylist())
        return {code: found[code] for code in CODES}

    @property
    def unexplained(self) -> int:
        """Differences that should not be."""
        return sum(count for code, count in self.counts.items() if code not in EXPLAINED)

    def completeness(self, partition: int | None = None) -> float:
        """Share of the decided impressed items that the stream has explained by a sample or a reason; 1 when
        nothing is decided. Of all partitions when None."""
        chosen = list(self.decided) if partition is None else [partition]
        decided = sum(self.decided[one] for one in chosen)
        missing = sum(self.unexplained_items.get(one, 0) for one in chosen)
        return 1.0 - missing / decided if decided else 1.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "unexplained": self.unexplained,
            "counts": self.counts,
            "completeness": self.completeness(),
            "partitions": {
                str(one): {"decided_items": self.decided[one], "completeness": self.completeness(one)}
                for one in sorted(self.decided)
            },
            "streamed_rows": self.streamed_rows,
            "offline_rows": self.offline_rows,
            "reasons_compared": self.reasons_compared,
            "examples": self._examples(),
        }

    def text(self) -> str:
        """For readers: what was compared, then the codes that occur, with examples."""
        lines = [
            f"{self.streamed_rows:,} rows of the stream, {self.offline_rows:,} of the batch join, "
            f"completeness {self.completeness():.6f}, {self.unexplained:,} unexplained differences"
        ]
        if not self.reasons_compared:
            lines.append("reason rows: not compared (the stream's were not given)")
        counts, examples = self.counts, self._examples()
        for code in (code for code in CODES if counts[code]):
            lines.append(f"{code:26} {counts[code]:>10,}{'  explained' if code in EXPLAINED else ''}")
            lines += [
                "    " + " ".join(f"{name}={value}" for name, value in row.items() if value not in (None, ""))
                for row in examples[code]
            ]
        return "\n".join(lines)

    def _examples(self) -> dict[str, list[dict[str, Any]]]:
        found = {}
        for code, count in self.counts.items():
            if count:
                rows = self.differences.filter(pc.equal(self.differences["code"], code))
                found[code] = rows.drop_columns(["code"]).slice(0, EXAMPLES).to_pylist()
        return found


def reconcile(streamed: pa.Table, offline: OfflineResult, late: pa.Table | None = None) -> Reconciliation:
    """Compares samples (schema of contract.lake_rows) with those of the batch join over the same log.

    ``late``: the stream's reason rows, late-events and dead-letters together (``REASONS_SCHEMA``)."""
    reasons = offline.reasons if late is None else late
    with duckdb.connect(":memory:", config={"enable_external_access": "false"}) as db:
        for name, samples in (("streamed", streamed), ("offline", offline.samples)):
            narrow = samples.select([*_COLUMNS, *_COMPARED])
            db.register(name, narrow.append_column("place", pa.array(np.arange(narrow.num_rows))))
        for name, rows in (("late", reasons), ("reasons", offline.reasons)):
            db.register(name, rows.append_column("ids", lists_of_ids("item_ids", rows["item_ids"])))
        for name, query in reconcile_sql.STEPS:
            db.execute(f"CREATE TEMP TABLE {name} AS {query}")
        db.execute(f"CREATE TEMP TABLE differences AS {reconcile_sql.differences()}")
        found = db.sql("SELECT * FROM differences ORDER BY ALL").to_arrow_table()
        completeness = db.execute(reconcile_sql.COMPLETENESS).fetchall()
    return Reconciliation(
        differences=found.cast(DIFFERENCES_SCHEMA),
        streamed_rows=streamed.num_rows,
        offline_rows=offline.samples.num_rows,
        reasons_compared=late is not None,
        decided={partition: decided for partition, decided, _ in completeness},
        unexplained_items={partition: missing for partition, _, missing in completeness},
    )


def between(
    streamed: pa.Table, offline: OfflineResult, since_us: int | None, until_us: int | None
) -> tuple[pa.Table, OfflineResult]:
    """Only samples of impressions, and reasons of records, in [since_us, until_us) (None: no end). What is
    malformed has no time and is in no range."""

    def cut(rows: pa.Table, column: str) -> pa.Table:
        if since_us is not None:
            rows = rows.filter(pc.greater_equal(rows[column], since_us))
        return rows if until_us is None else rows.filter(pc.less(rows[column], until_us))

    samples, reasons = cut(offline.samples, "impressed_us"), cut(offline.reasons, "occurred_us")
    return cut(streamed, "impressed_us"), OfflineResult(samples, reasons)
