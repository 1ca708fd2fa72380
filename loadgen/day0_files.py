"""The cached files of a day 0: what the loop would hold at the end of that day. Times are those of the log
(day0_log.END_US is the end); a seed shifts them.

| file | columns |
|---|---|
| events.parquet | source (0 snapshots, 1 impressions, 2 actions), value (EventRecord bytes), in time order |
| samples.parquet | value (SampleRecord bytes), in order of emission |
| views.parquet | what feature views see of the catalogue and of events.parquet (day0_views.SCHEMA) |
| items.parquet | item_id, item_key, category, created_us |
| co_clicks.parquet | item_id, other_id, count |
| meta.json | the world's config, counts, end_us |
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from loadgen import day0_views
from services.contract.view_log import EventLog

COMPRESSION = "lz4"
EVENTS, SAMPLES, VIEWS, META = "events.parquet", "samples.parquet", "views.parquet", "meta.json"


class Appender:
    """A Parquet file of given columns that grows by row groups."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression=COMPRESSION, use_dictionary=False)

    def add(self, *columns: Any) -> None:
        """Appends one row group."""
        arrays = [pa.array(column, kind.type) for column, kind in zip(columns, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        """Writes the footer; only then the file can be read."""
        self._writer.close()


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


EVENTS_SCHEMA = _schema(source=pa.uint8(), value=pa.binary())
SAMPLES_SCHEMA = _schema(value=pa.binary())
ITEMS_SCHEMA = _schema(
    item_id=pa.uint64(),
    item_key=pa.string(),
    category=pa.uint8(),
    created_us=pa.int64(),
)
CO_CLICKS_SCHEMA = _schema(item_id=pa.uint64(), other_id=pa.uint64(), count=pa.uint32())


def write(folder: Path, name: str, schema: pa.Schema, *columns: Any) -> None:
    """Writes one whole file ``<name>.parquet``."""
    file = Appender(folder / f"{name}.parquet", schema)
    file.add(*columns)
    file.close()


@dataclass(frozen=True)
class Day0Files:
    """What a seed needs, as arrays."""

    item_ids: NDArray[np.uint64]
    item_keys: list[str]
    categories: NDArray[np.uint8]
    created_us: NDArray[np.int64]
    views: EventLog
    co_items: NDArray[np.uint64]
    co_others: NDArray[np.uint64]
    co_counts: NDArray[np.uint32]
    meta: dict[str, Any]


def read(folder: Path) -> Day0Files:
    """Reads everything but the records and the samples."""
    items, pairs = pq.read_table(folder / "items.parquet"), pq.read_table(folder / "co_clicks.parquet")
    return Day0Files(
        item_ids=_numbers(items, "item_id"),
        item_keys=items.column("item_key").to_pylist(),
        categories=_numbers(items, "category"),
        created_us=_numbers(items, "created_us"),
        views=day0_views.log_of(pq.read_table(folder / VIEWS)),
        co_items=_numbers(pairs, "item_id"),
        co_others=_numbers(pairs, "other_id"),
        co_counts=_numbers(pairs, "count"),
        meta=read_meta(folder),
    )


def read_meta(folder: Path) -> dict[str, Any]:
    """The world's config, counts, and ``end_us``."""
    found: dict[str, Any] = json.loads((folder / META).read_text())
    return found


def _numbers(table: pa.Table, column: str) -> NDArray:
    return table.column(column).to_numpy()
