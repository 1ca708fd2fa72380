"""Feast as a process that is asked line by line, and the files it reads."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import features_asof
from services.contract.view_log import EventLog


class Feast:
    """A process with Feast, told one word after the other."""

    def __init__(self, python: str, folder: Path, address: str) -> None:
        script = Path(__file__).with_name("features_feast.py")
        log = (folder / "feast.log").open("wb")
        self._child = subprocess.Popen(
            [python, str(script), str(folder), address], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log, text=True, env={**os.environ, "FEAST_USAGE": "False", "PYTHONPATH": ""},
        )  # fmt: skip
        self.version = self._line()[0]

    def _line(self) -> list[str]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline().split()
        if not line:
            raise SystemExit("Feast failed; see feast.log, or run with --keep")
        return line

    def ask(self, word: str) -> list[float]:
        """Its numbers."""
        assert self._child.stdin is not None
        self._child.stdin.write(word + "\n")
        self._child.stdin.flush()
        return [float(one) for one in self._line()]

    def close(self) -> None:
        """Ends the process."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(30)


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
