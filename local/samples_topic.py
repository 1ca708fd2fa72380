"""Samples as Kafka holds them, as a table (columns of contract.lake_schema)."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from local.chaos_check import LogRecord
from local.errors import StartFailed
from services.contract import lake_rows


def samples_table(records: Iterable[LogRecord], topic: str) -> pa.Table:
    """The rows of one topic, of all that was read. Raises StartFailed for a record that is no sample."""
    rows = [
        lake_rows.LogRecord(one.partition, one.offset, one.timestamp_ms, one.value)
        for one in records
        if one.topic == topic
    ]
    table, bad = lake_rows.to_rows("samples", rows)
    if bad:
        raise StartFailed(f"{topic}: {len(bad)} records that are no samples, the first: {bad[0].detail}")
    return table
