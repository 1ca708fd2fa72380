"""History of before the topics: what no Kafka record holds (the seed's day 0).

    <root>/history/<name>.parquet           a log of view events
    <root>/history-samples/<name>.parquet   training samples, rows of the lake's table of that name

Columns of an EventLog, all of one origin, ``<name>/0``. Written by whoever writes Redis from the same log, so
that whoever computes from the lake counts what the states began with; the fold's marks name that origin too.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from services.contract.errors import InvalidInput, MalformedRecord
from services.contract.lake_schema import SCHEMAS
from services.contract.lake_store import LakeStore
from services.contract.view_events import ALL_FIELDS
from services.contract.view_log import EventLog

FOLDER, SAMPLES_FOLDER = "history", "history-samples"
_NAME = re.compile(r"[a-z0-9-]{1,64}")
_COLUMNS = ("kind", "occurred_us", "event_hash", "appended_us", "sequence")


def origin_of(name: str) -> str:
    """The origin of a history's events; InvalidInput when the name is none."""
    if not _NAME.fullmatch(name):
        raise InvalidInput.one("name", name, "1 to 64 of a-z, 0-9 and -")
    return f"{name}/0"


def write_history(store: LakeStore, name: str, log: EventLog) -> None:
    """Puts a log (of all fields) in the place of the history of that name. InvalidInput: another origin, a
    sequence twice."""
    if log.origins != (origin_of(name),):
        raise InvalidInput.one("origins", ", ".join(log.origins), origin_of(name))
    if len(np.unique(log.sequence)) != len(log):
        raise InvalidInput.one("sequence", "repeated", "each once")
    columns = {column: getattr(log, column) for column in _COLUMNS}
    columns |= {field: log.field(field) for field in ALL_FIELDS}
    store.put(f"{FOLDER}/{name}.parquet", _encoded(pa.table(columns)))


def histories(store: LakeStore) -> list[str]:
    """Their names."""
    return _names(store, FOLDER)


def read_history(store: LakeStore, name: str) -> EventLog:
    """MalformedRecord when the file is none; NotFound."""
    path = f"{FOLDER}/{name}.parquet"
    table = _read(store, path)
    try:
        columns = {column: table[column].to_numpy() for column in (*_COLUMNS, *ALL_FIELDS)}
    except KeyError as error:
        raise MalformedRecord.one(path, repr(error), "a history") from error
    fields = {field: columns.pop(field) for field in ALL_FIELDS}
    place = np.zeros(table.num_rows, np.int32)
    return EventLog(**columns, origin=place, fields=fields, origins=(origin_of(name),))


def write_samples(store: LakeStore, name: str, samples: pa.Table) -> None:
    """Puts samples in the place of the history of that name. InvalidInput: no name, or columns that are not
    those of the lake's samples."""
    origin_of(name)
    if samples.schema != SCHEMAS["samples"]:
        raise InvalidInput.one("samples", ", ".join(samples.schema.names)[:200], "the lake's columns")
    store.put(f"{SAMPLES_FOLDER}/{name}.parquet", _encoded(samples))


def read_samples(store: LakeStore) -> pa.Table:
    """The samples of all histories, by name; MalformedRecord when a file is none."""
    schema = SCHEMAS["samples"]
    parts = [schema.empty_table()]
    for name in _names(store, SAMPLES_FOLDER):
        path = f"{SAMPLES_FOLDER}/{name}.parquet"
        table = _read(store, path)
        if table.schema != schema:
            raise MalformedRecord.one(path, ", ".join(table.schema.names)[:200], "the lake's samples")
        parts.append(table)
    return pa.concat_tables(parts)


def _names(store: LakeStore, folder: str) -> list[str]:
    found = (path.removeprefix(f"{folder}/") for path in store.names(folder))
    return sorted(path.removesuffix(".parquet") for path in found if path.endswith(".parquet"))


def _encoded(table: pa.Table) -> pa.Buffer:
    out = pa.BufferOutputStream()
    pq.write_table(table, out, compression="zstd", write_page_checksum=True)
    return out.getvalue()


def _read(store: LakeStore, path: str) -> pa.Table:
    data = store.read(path)
    try:
        return pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise MalformedRecord.one(path, repr(error), "a history") from error
