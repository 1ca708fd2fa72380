"""``python -m services.lake features|audit-features``: features out of the lake.

features   ``--entities`` is a Parquet file with occurred_us and, as the features need, user_id, item_id and
           served_us (wall time, for ``--mode as_served``). ``--out`` gets its rows in their order, with a
           float32 per feature and ``<view>_missing``: nothing is dropped. A JSON line says how many.
audit-features
           recomputes what the snapshots in the lake say was served (audit.py): a table on stdout, JSON in
           ``--out`` when given; exit code 1 when a feature is skewed
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from services.contract.errors import FieldViolation, InvalidInput, LoopError
from services.contract.feature_sets import feature_set
from services.contract.lake_store import LakeStore
from services.contract.view_log import Mode
from services.lake.audit_report import as_dict, as_text
from services.lake.auditor import Auditor, audit_rules, settle_s
from services.lake.point_in_time import Found, PointInTime, Rows, columns_of
from services.lake.settings import Settings
from services.lake.view_log import LakeEvents
from services.runtime.settings import load

_FIELDS = {"user_id": pa.uint64(), "item_id": pa.uint64(), "occurred_us": pa.int64(), "served_us": pa.int64()}


class FeatureSettings(Settings):
    """The service's settings, and what the commands want."""

    entities: Path | None = None
    """Parquet file of the rows that ask."""
    out: Path | None = None
    """File that is written: features as Parquet, an audit as JSON."""
    features: str = ""
    """Columns or whole views, with commas between; empty: every column of the feature set."""
    mode: Mode = "ideal"
    """ideal: all before occurred_us. as_served: what had been appended, plus lag_ms, before served_us."""
    lag_ms: float = Field(default=0.0, ge=0.0)
    """as_served: from append to being served, wall time."""


def command(name: str, argv: Sequence[str]) -> int:
    """Runs one command; its exit code, 2 when the input, the lake or the settings cannot be used."""
    settings = load(FeatureSettings, argv)
    return run(name, lambda: COMMANDS[name](settings))


def run(name: str, work: Callable[[], int]) -> int:
    """The exit code of a command's work; 2, and a line that says why, when it could not be done."""
    try:
        return work()
    except (LoopError, OSError) as error:
        sys.stderr.write(f"services.lake {name}: {error}\n")
        return 2


def features(settings: FeatureSettings) -> int:
    """Point-in-time features of a file's rows."""
    if settings.entities is None or settings.out is None:
        raise InvalidInput.one("entities, out", "not both given", "two files")
    chosen = feature_set(settings.feature_set)
    columns = columns_of(chosen, [name.strip() for name in settings.features.split(",") if name.strip()])
    table = _read(settings.entities)
    log = LakeEvents(LakeStore(settings.lake_uri), settings.history_max_records).read()
    point = PointInTime(chosen, log, rows_of(table), settings.mode, round(settings.lag_ms * 1000))
    found = point.found(columns)
    pq.write_table(_beside(table, found), settings.out, compression="zstd")
    line = {"rows": table.num_rows, "columns": len(columns), "missing_share": float(found.missing.mean())}
    sys.stdout.write(json.dumps(line) + "\n")
    return 0


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except pa.ArrowException as error:
        raise InvalidInput.one("entities", f"{path}: {error}", "a Parquet file") from error


def rows_of(table: pa.Table) -> Rows:
    """The rows of a table of _FIELDS; other columns are no matter. InvalidInput names what is wrong."""
    bad: list[FieldViolation] = []
    found: dict[str, NDArray] = {}
    for name, dtype in _FIELDS.items():
        if name not in table.schema.names:
            if name == "occurred_us":
                bad.append(FieldViolation(name, ", ".join(table.schema.names)[:100], "a column of this name"))
            continue
        try:
            column = table[name].cast(dtype)
        except pa.ArrowException as error:
            bad.append(FieldViolation(name, str(error)[:100], str(dtype)))
            continue
        if column.null_count:
            row = pc.index(column.is_null(), pa.scalar(True)).as_py()
            bad.append(FieldViolation(f"{name}[{row}]", "null", str(dtype)))
            continue
        found[name] = column.to_numpy()
    if bad:
        raise InvalidInput(bad)
    none = np.zeros(table.num_rows, np.uint64)
    return Rows(
        found.get("user_id", none), found.get("item_id", none), found["occurred_us"], found.get("served_us")
    )


def _beside(table: pa.Table, found: Found) -> pa.Table:
    """The given rows with their features; InvalidInput when a column of that name is there already."""
    missing = {f"{column.view.name}_missing": at for at, column in enumerate(found.columns)}
    new: dict[str, NDArray] = {column.name: found.values[:, at] for at, column in enumerate(found.columns)}
    new |= {name: found.missing[:, at] for name, at in missing.items()}
    for name in new:
        if name in table.schema.names:
            raise InvalidInput.one("entities", name, "no column that is named as a feature")
    for name, values in new.items():
        table = table.append_column(name, pa.array(values))
    return table


def audit_features(settings: FeatureSettings) -> int:
    """An audit of every settled snapshot in the lake."""
    store = LakeStore(settings.lake_uri)
    events = LakeEvents(store, settings.history_max_records)
    chosen = feature_set(settings.feature_set)
    said = Auditor(store, events, chosen, audit_rules(settings), settle_s(settings)).audit(time.time())
    if settings.out is not None:
        settings.out.write_text(json.dumps(as_dict(said), indent=1) + "\n")
    sys.stdout.write(as_text(said) + "\n")
    return 1 if said.skewed() else 0


COMMANDS: dict[str, Callable[[FeatureSettings], int]] = {
    "features": features,
    "audit-features": audit_features,
}
