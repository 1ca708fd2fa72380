"""The lake's Parquet files: written by event day, read through the log that says which of them count.

    <root>/<table>/day=2026-03-01/<partition>-<first>-<last>-<token>.parquet

The day is that of ``occurred_us`` in UTC (of ``appended_ms`` for a row without a time, and of a listed item:
births are spread over years). ``first`` and
``last`` are the range of offsets that was written at once; ``token`` is the writer's, so that two writers
never write the same file. Rows stand in the order (partition, offset, row).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.contract.errors import FieldViolation, InvalidInput, MalformedRecord, NotFound
from services.contract.lake_log import LakeFile, LakeLog, State, partitions
from services.contract.lake_schema import SCHEMAS
from services.contract.lake_store import LakeStore

DAY_US = 86_400_000_000
ROW_GROUP_ROWS = 128 * 1024
SCAN_TRIES = 3
# Few values, often repeated; feature columns would only fill a dictionary and then drop it.
_DICTIONARY = ["record", "request_id", "policy", "arm", "barrier_id", "detail", "user_features"]


class BrokenFile(MalformedRecord):
    """A file that counts and cannot be read: which one, what is wrong, which offsets it should hold."""

    def __init__(self, table: str, file: LakeFile, why: str) -> None:
        held = f"{file.rows} rows of offsets {file.first} to {file.last}"
        super().__init__([FieldViolation(f"{table}/{file.path}", why, held)])
        self.table = table
        self.file = file
        self.why = why


def day_of(micros: int) -> str:
    """The UTC day of an event time, as in the folders' names."""
    return str(np.datetime64(micros // DAY_US, "D"))


def split_days(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """(day, its rows in their order), days ascending."""
    appended_us = pc.multiply(rows["appended_ms"], pa.scalar(1000, pa.int64()))
    times = (
        pc.coalesce(rows["occurred_us"], appended_us) if "occurred_us" in rows.schema.names else appended_us
    )
    days = np.floor_divide(times.to_numpy(), DAY_US)
    for day in np.unique(days).tolist():
        yield str(np.datetime64(day, "D")), rows.filter(pa.array(days == day))


def encode(rows: pa.Table) -> pa.Buffer:
    """Parquet bytes, with a checksum on every page."""
    out = pa.BufferOutputStream()
    dictionary = [name for name in _DICTIONARY if name in rows.schema.names]
    pq.write_table(
        rows,
        out,
        compression="zstd",
        use_dictionary=dictionary,
        row_group_size=ROW_GROUP_ROWS,
        write_page_checksum=True,
    )
    return out.getvalue()


def write_file(store: LakeStore, table: str, day: str, stem: str, rows: pa.Table) -> LakeFile:
    """Writes rows (at least one) of one day; the file does not count until the log says so."""
    data = encode(rows)
    path = f"day={day}/{stem}.parquet"
    store.put(f"{table}/{path}", data)
    ends = pc.min_max(rows["offset"])
    return LakeFile(path, day, rows.num_rows, data.size, ends["min"].as_py(), ends["max"].as_py())


def read_file(store: LakeStore, table: str, file: LakeFile, columns: Sequence[str] | None = None) -> pa.Table:
    """A file's rows under today's schema: columns that it does not have are null. BrokenFile says what is
    wrong."""
    schema = projected(table, columns)
    name = f"{table}/{file.path}"
    size = store.size(name)
    if size is None:
        raise BrokenFile(table, file, "missing")
    if size != file.bytes:
        raise BrokenFile(table, file, f"{size} of {file.bytes} bytes")
    try:
        with store.files.open_input_file(store.path(name)) as source:
            parquet = pq.ParquetFile(source, page_checksum_verification=True)
            # Asked for once: each time it is put together anew, which takes as long as reading a small file.
            held = set(parquet.schema_arrow.names)
            present = [name for name in schema.names if name in held]
            rows = parquet.read(columns=present)
            count = parquet.metadata.num_rows
            arrays = [
                rows[one.name].cast(one.type) if one.name in held else pa.nulls(count, one.type)
                for one in schema
            ]
    except (pa.ArrowException, OSError) as error:
        raise BrokenFile(table, file, repr(error)) from error
    if count != file.rows:
        raise BrokenFile(table, file, f"{count} rows")
    return pa.Table.from_arrays(arrays, schema=schema)


def projected(table: str, columns: Sequence[str] | None) -> pa.Schema:
    """The schema of some columns of a table (all when None). InvalidInput names what does not exist."""
    if table not in SCHEMAS:
        raise InvalidInput.one("table", table, f"one of {', '.join(SCHEMAS)}")
    schema = SCHEMAS[table]
    if columns is None:
        return schema
    for name in columns:
        if name not in schema.names:
            raise InvalidInput.one("columns", name, f"columns of {table}: {', '.join(schema.names)}")
    return pa.schema([schema.field(name) for name in columns])


def files(
    store: LakeStore,
    table: str,
    days: Sequence[str] | None = None,
    since: Mapping[int, int] = MappingProxyType({}),
) -> list[tuple[int, LakeFile]]:
    """(partition, file) of everything that counts now, by partition and first offset; ``days`` and ``since``
    as of scan."""
    found = [
        (partition, file)
        for partition, state in states(store, table).items()
        for file in state.files.values()
        if (days is None or file.day in days) and file.last >= since.get(partition, 0)
    ]
    return sorted(found, key=lambda one: (one[0], one[1].first, one[1].day))


def states(store: LakeStore, table: str) -> dict[int, State]:
    """The state of every partition of a table."""
    return {one: LakeLog(store, table, one).load() for one in partitions(store, table)}


def scan(
    root: str,
    table: str,
    days: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    since: Mapping[int, int] = MappingProxyType({}),
) -> pa.Table:
    """Every row of a table (of some days, ``YYYY-MM-DD``) once, by partition, in no promised order within it.

    ``since``: by partition the offset from which on rows are wanted. Files that end below it are not read; of
    the others all rows come, so some may be older.

    ``root`` is a folder or a URI. BrokenFile names a file that cannot be read; InvalidInput an unknown table
    or column. A scan that was overtaken by a compaction begins anew.
    """
    store = LakeStore(root)
    schema = projected(table, columns)
    for attempt in range(1, SCAN_TRIES + 1):
        try:
            parts = [read_file(store, table, file, columns) for _, file in files(store, table, days, since)]
        except (BrokenFile, NotFound) as error:
            gone = isinstance(error, NotFound) or error.why == "missing"
            if not gone or attempt == SCAN_TRIES:
                raise
        else:
            return pa.concat_tables([schema.empty_table(), *parts])
    raise AssertionError("unreachable")
