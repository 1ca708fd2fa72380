"""History of before the topics: logs of view events that no Kafka record holds (the seed's day 0).

    <root>/history/<name>.parquet

Columns of an EventLog, all of one origin, ``<name>/0``. Written by whoever writes Redis from the same log, so
that whoever computes from the lake counts what the states began with; the fold's marks name that origin too.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from services.contract.errors import InvalidInput, MalformedRecord
from services.contract.lake_store import LakeStore
from services.contract.view_events import ALL_FIELDS
from services.contract.view_log import EventLog

FOLDER = "history"
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
    out = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), out, compression="zstd", write_page_checksum=True)
    store.put(f"{FOLDER}/{name}.parquet", out.getvalue())


def histories(store: LakeStore) -> list[str]:
    """Their names."""
    found = (path.removeprefix(f"{FOLDER}/") for path in store.names(FOLDER))
    return sorted(path.removesuffix(".parquet") for path in found if path.endswith(".parquet"))


def read_history(store: LakeStore, name: str) -> EventLog:
    """MalformedRecord when the file is none; NotFound."""
    path = f"{FOLDER}/{name}.parquet"
    data = store.read(path)
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        columns = {column: table[column].to_numpy() for column in (*_COLUMNS, *ALL_FIELDS)}
    except (pa.ArrowException, KeyError, OSError) as error:
        raise MalformedRecord.one(path, repr(error), "a history") from error
    fields = {field: columns.pop(field) for field in ALL_FIELDS}
    place = np.zeros(table.num_rows, np.int32)
    return EventLog(**columns, origin=place, fields=fields, origins=(origin_of(name),))
