"""``python -m services.lake join|reconcile``: the batch join over the lake, and the stream against it.

join        writes samples.parquet and reasons.parquet to ``--out``; a JSON line says how many
reconcile   compares the lake's samples with the batch join; the differences on stdout, reconcile.json in
            ``--out``; exit code 1 when a difference is unexplained

Both read the whole lake unless ``--since`` is given. The windows must be the joiner's: the settings have the
same names, so that one environment serves both. A lake that is still written to is compared up to a past
``--until``.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from services.contract.errors import LoopError
from services.contract.join_config import JoinConfig
from services.contract.lake_files import day_of, encode, files, scan
from services.contract.lake_store import LakeStore
from services.lake.join import OfflineResult, offline_join
from services.lake.reconcile import between, reconcile
from services.lake.settings import Settings
from services.runtime.settings import load

_INPUTS = ("snapshots", "impressions", "actions")
_DAY = r"^\d{4}-\d\d-\d\d$"


class BatchSettings(Settings):
    """The service's settings, and those of the joiner that decide what a sample is."""

    window_ms: int = Field(default=20_000, gt=0)
    """As the joiner's: event time after an impression in which an action labels it."""
    show_within_ms: int | None = Field(default=None, gt=0)
    """As the joiner's: event time from a request to its impression. Default: window_ms."""
    bound_ms: int = Field(default=2_000, ge=0)
    """As the joiner's: disorder bound, wall time multiplied by time_scale; event time when that is 0."""
    since: str | None = Field(default=None, pattern=_DAY)
    """First event day (UTC) of the impressions wanted. The join also reads the days before it that its
    windows reach into, and all later ones: a record of the future moves the event clock."""
    until: str | None = Field(default=None, pattern=_DAY)
    """Event day (UTC) before which impressions are wanted."""
    out: str | None = None
    """Folder or object-store URI for the results. Default: nothing is written."""

    def join_config(self) -> JoinConfig:
        """The rules; InvalidInput when they contradict each other."""
        return JoinConfig(
            window_us=self.window_ms * 1000,
            bound_us=int(self.bound_ms * 1000 * (self.time_scale or 1.0)),
            show_within_us=None if self.show_within_ms is None else self.show_within_ms * 1000,
        )


def command(name: str, argv: Sequence[str]) -> int:
    """Runs one command; its exit code, 2 when the lake or the settings cannot be used."""
    settings = load(BatchSettings, argv)
    try:
        return COMMANDS[name](settings)
    except LoopError as error:
        sys.stderr.write(f"services.lake {name}: {error}\n")
        return 2


def join(settings: BatchSettings) -> int:
    """The offline scheme's samples, as Parquet."""
    _, offline = read(settings, streamed=False)
    samples, reasons = offline.samples, offline.reasons
    _write(settings, "samples.parquet", encode(samples))
    _write(settings, "reasons.parquet", encode(reasons))
    positives = pc.sum(pc.greater(samples["label"], 0)).as_py() or 0
    counts = Counter(reasons["reason"].to_pylist())
    line = {"samples": samples.num_rows, "positives": positives, "reasons": dict(sorted(counts.items()))}
    sys.stdout.write(json.dumps(line) + "\n")
    return 0


def reconcile_lake(settings: BatchSettings) -> int:
    """The stream's samples against the batch join."""
    found = reconcile(*read(settings, streamed=True))
    _write(settings, "reconcile.json", json.dumps(found.as_dict(), indent=1).encode())
    sys.stdout.write(found.text() + "\n")
    return 1 if found.unexplained else 0


def read(settings: BatchSettings, streamed: bool) -> tuple[pa.Table, OfflineResult]:
    """(the lake's samples, none unless ``streamed``; the batch join), of the days wanted."""
    config = settings.join_config()
    since_us, until_us = _micros(settings.since), _micros(settings.until)
    first = None if since_us is None else day_of(since_us - 2 * config.memory_us)
    tables = {name: _scan(settings.lake_uri, name, first) for name in _INPUTS}
    offline = offline_join(tables, config)
    samples = _scan(settings.lake_uri, "samples", first) if streamed else offline.samples.slice(0, 0)
    return between(samples, offline, since_us, until_us)


def _scan(root: str, table: str, first: str | None) -> pa.Table:
    """The rows of a table from a day on."""
    if first is None:
        return scan(root, table)
    days = {file.day for _, file in files(LakeStore(root), table)}
    return scan(root, table, sorted(day for day in days if day >= first))


def _micros(day: str | None) -> int | None:
    return None if day is None else int(np.datetime64(day, "us").astype(np.int64))


def _write(settings: BatchSettings, name: str, data: bytes | pa.Buffer) -> None:
    if settings.out is not None:
        LakeStore(settings.out).put(name, data)


COMMANDS: dict[str, Callable[[BatchSettings], int]] = {"join": join, "reconcile": reconcile_lake}
