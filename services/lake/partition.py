"""One owned partition of one table: from records to files to a record of its log. Synchronous; runs in a
thread.

Opening fences: the log's ``open`` record stands in the way of whoever wrote before. Only then files that a
flush left behind and no record names are orphans, and can go.
"""

from __future__ import annotations

import re
import time
import uuid

from services.contract import lake_files, lake_log
from services.contract.lake_log import LakeLog, Record
from services.contract.lake_rows import LogRecord, to_rows
from services.contract.lake_store import LakeStore
from services.lake import metrics

# What a flush of partition p calls its files, half-written ones included.
_FLUSHED = r"\.?{p}-\d+-\d+-w[0-9a-f]+\.parquet(\.[0-9a-f]+)?"


class PartitionWriter:
    """``open``, then ``flush`` again and again; one thread at a time."""

    def __init__(self, store: LakeStore, table: str, partition: int) -> None:
        self.table = table
        self.partition = partition
        self._store = store
        self._log = LakeLog(store, table, partition)
        self._owner = f"w{uuid.uuid4().hex[:12]}"
        self._state = lake_log.State()

    @property
    def next_offset(self) -> int | None:
        """The first offset that the lake does not cover; None before the first flush."""
        return self._state.next_offset

    def open(self) -> None:
        """Takes the partition over and removes what earlier owners left behind."""
        opened = Record(lake_log.OPEN, self._owner, _now_ms())
        self._state = self._log.append(self._log.load(), opened)
        for name in self._orphans():
            self._store.delete(name)
            metrics.ORPHANS.labels(self.table).inc()
            metrics.log.info("orphan removed", file=name)

    def flush(self, records: list[LogRecord], first: int) -> None:
        """Makes the offsets from ``first`` to the last record's part of the lake: all or nothing.

        Offsets in between that no record has belong to the range (transaction marks). Conflict when another
        writer has opened the partition; OSError when the store fails: the same call may be repeated."""
        last = records[-1].offset
        rows, bad = to_rows(self.table, records)
        stem = f"{self.partition}-{first}-{last}-{self._owner}"
        files = tuple(
            lake_files.write_file(self._store, self.table, day, stem, part)
            for day, part in lake_files.split_days(rows)
        )
        said = tuple(f"{one.offset}: {one.detail}" for one in bad)
        record = Record(lake_log.FLUSH, self._owner, _now_ms(), first, last, files, bad=said)
        lost = first - self._state.next_offset if self._state.next_offset is not None else 0
        self._state = self._log.append(self._state, record)
        self._count(records, record, lost)

    def _orphans(self) -> list[str]:
        flushed = re.compile(_FLUSHED.format(p=self.partition))
        kept = {f"{self.table}/{path}" for path in (*self._state.files, *self._state.dropped)}
        return [
            name
            for name in self._store.names(self.table)
            if flushed.fullmatch(name.rpartition("/")[2]) and name not in kept
        ]

    def _count(self, records: list[LogRecord], record: Record, lost: int) -> None:
        metrics.RECORDS.labels(self.table).inc(len(records))
        metrics.ROWS.labels(self.table).inc(sum(file.rows for file in record.files))
        metrics.FILES.labels(self.table).inc(len(record.files))
        metrics.BYTES.labels(self.table).inc(sum(file.bytes for file in record.files))
        if record.bad:
            metrics.BAD.labels(self.table).inc(len(record.bad))
            metrics.log.warning("bad records", table=self.table, partition=self.partition, bad=record.bad[:5])
        if lost > 0:
            metrics.LOST.labels(self.table).inc(lost)
            metrics.log.error("offsets lost", table=self.table, partition=self.partition, records=lost)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
