"""Feast as a peer, and the files it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import features_asof
from benchmarks.peer import Peer, foreign
from services.contract.view_log import EventLog


def feast(python: str, folder: Path, address: str) -> Peer:
    """Feast on a Redis, with the files of ``folder``."""
    return foreign("features_feast", python, [str(folder), address], folder, {"FEAST_USAGE": "False"})


def write_for_feast(log: EventLog, labels: features_asof.Labels, items: int, folder: Path) -> None:
    """Ids become signed: Feast knows no others."""
    rng = np.random.default_rng(3)
    values = rng.random((items, 16), np.float32)
    stamp = pa.array(np.full(items, features_asof.START_US), pa.timestamp("us", "UTC"))
    ids = np.arange(items)
    columns: dict[str, Any] = {"item_id": ids, "user_id": ids, "event_timestamp": stamp}
    columns |= {f"f{index}": values[:, index] for index in range(16)}
    pq.write_table(pa.table({**columns, "all": list(values)}), folder / "items.parquet")
    at = pa.array(log.occurred_us, pa.timestamp("us", "UTC"))
    keys = {name: log.fields[name].view(np.int64) for name in ("user_id", "item_id")}
    pq.write_table(
        pa.table({**keys, "position": log.fields["position"], "event_timestamp": at}), folder / "log.parquet"
    )
    asked = {name: column.view(np.int64) for name, column in labels.fields.items()}
    at = pa.array(labels.at_us, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({**asked, "event_timestamp": at}), folder / "labels.parquet")
