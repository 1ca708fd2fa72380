"""Where batch views are in the lake: one Parquet file per partition, created once and never changed.

    <root>/views/<view>/v<version>/<partition>.parquet

Of two publishers one creates partition n + 1, the other is told so (LakeStore.create). The file carries the
digest of its columns, and every page a checksum; a reader that does not find the digest again refuses it.
"""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rec.events.v1 import events_pb2 as ev
from services.contract import lake_files
from services.contract.batch_view import VERSION, VIEW, Table, label
from services.contract.errors import MalformedRecord, NotFound
from services.contract.lake_store import LakeStore

_FOLDER = f"views/{VIEW}/v{VERSION}"
_DIGEST = b"digest"
_SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.uint64()),
        pa.field("category", pa.uint32()),
        # Microseconds, 0 = unknown.
        pa.field("created_us", pa.int64()),
    ]
)


def partitions(store: LakeStore) -> dict[int, float]:
    """Partition -> when it was published (seconds), ascending."""
    found = {}
    for name, changed_s in store.names(_FOLDER).items():
        stem = name.rpartition("/")[2].removesuffix(".parquet")
        if stem.isdecimal():
            found[int(stem)] = changed_s
    return dict(sorted(found.items()))


def publish(store: LakeStore, table: Table) -> None:
    """Writes a table; FileExistsError when its partition is there already."""
    arrays = [pa.array(table.item_ids), pa.array(table.category), pa.array(table.created_us)]
    schema = _SCHEMA.with_metadata({_DIGEST: f"{table.digest():016x}".encode()})
    rows = pa.Table.from_arrays(arrays, schema=schema)
    store.create(_path(table.partition), lake_files.encode(rows).to_pybytes())


def read(store: LakeStore, view: ev.BatchView) -> Table:
    """The table of a name. NotFound when it is not there (any more), MalformedRecord when its bytes are not
    what was published, OSError when the store fails."""
    if (view.view, view.version) != (VIEW, VERSION):
        raise NotFound(f"batch view {label(view)} is not known here")
    try:
        data = store.read(_path(view.partition))
    except NotFound as error:
        raise NotFound(f"batch view {label(view)} is gone") from error
    try:
        # From memory: what fails now is the file, not the way to it.
        rows = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True).read()
        columns = [rows[field.name].cast(field.type).to_numpy() for field in _SCHEMA]
        said = (rows.schema.metadata or {}).get(_DIGEST, b"").decode()
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        raise MalformedRecord.one(f"batch view {label(view)}", repr(error), "a readable file") from error
    table = Table(view.partition, *(np.ascontiguousarray(column) for column in columns))
    digest = f"{table.digest():016x}"
    if digest != said:
        raise MalformedRecord.one(f"batch view {label(view)}", digest, f"the digest {said}")
    return table


def expire(store: LakeStore, retention_s: float, now_s: float) -> list[int]:
    """Deletes the partitions that a newer one replaced more than ``retention_s`` ago; never the newest."""
    found = pairwise(partitions(store).items())
    gone = [one for (one, _), (_, replaced_s) in found if replaced_s + retention_s < now_s]
    for partition in gone:
        store.delete(_path(partition))
    return gone


def _path(partition: int) -> str:
    return f"{_FOLDER}/{partition:012d}.parquet"
