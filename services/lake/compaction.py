"""Many small files of a day become few large ones, and a sample id that came twice comes once. Synchronous.

Killed anywhere, a reader still sees every row once:

1. the merged file is written under a name of its own     not named by the log: nobody reads it
2. it is read back and compared                           (as 1)
3. one record of the log puts it in the others' place     all or nothing; refused when one of them has gone
4. after ``grace_ms`` the replaced files are deleted      by the next run; readers of an older state are done
5. a checkpoint is written, older records are deleted     (as 4)

Merged files that no record names (killed before 3) go after ``grace_ms`` as well; so a run that needs more
than half of it between 1 and 3 gives up.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.contract import lake_files, lake_log
from services.contract.errors import Conflict
from services.contract.lake_log import LakeFile, LakeLog, Record, State
from services.contract.lake_store import LakeStore

SAMPLE_ID = ["request_id", "item_id", "label_version"]
_MERGED = r"\.?{p}-\d+-\d+-c[0-9a-f]+\.parquet(\.[0-9a-f]+)?"


@dataclass(frozen=True)
class Rules:
    """How compaction works. ``target_bytes``: files are merged up to this size (of Parquet)."""

    target_bytes: int = 256 * 1024 * 1024
    grace_ms: int = 3_600_000


@dataclass(frozen=True)
class Merge:
    """What was done: files of one day in, one out (none when every row was a repeat)."""

    table: str
    partition: int
    day: str
    files: int
    rows: int
    repeats: int


class Compactor:
    """Compacts one partition of one table. ``now_ms`` is wall time."""

    def __init__(
        self, store: LakeStore, table: str, partition: int, rules: Rules, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._table = table
        self._partition = partition
        self._rules = rules
        self._now_ms = now_ms
        self._log = LakeLog(store, table, partition)

    def run(self, days: Sequence[str]) -> list[Merge]:
        """Merges what can be merged of some days, then cleans. BrokenFile when a file cannot be read: its
        day stays as it is. Conflict when another compaction was faster."""
        done: list[Merge] = []
        state = self._log.load()
        for day in sorted(set(days)):
            files = sorted((f for f in state.files.values() if f.day == day), key=lambda f: f.first)
            kept = self._first_of_each_id(files)
            for group in groups(files, self._rules.target_bytes):
                repeats = sum(int((~kept[file.path]).sum()) for file in group if file.path in kept)
                if len(group) > 1 or repeats:
                    state, rows = self._merge(state, day, group, kept)
                    done.append(Merge(self._table, self._partition, day, len(group), rows, repeats))
        self._clean(state)
        return done

    def _first_of_each_id(self, files: list[LakeFile]) -> dict[str, NDArray[np.bool_]]:
        """path -> which of its rows are the first of their sample id (files in the order of their offsets).

        One request stands in one partition and one day, so nothing else has to be looked at."""
        if self._table != "samples":
            return {}
        parts = [lake_files.read_file(self._store, self._table, file, SAMPLE_ID) for file in files]
        if not parts:
            return {}
        kept = first_rows(pa.concat_tables(parts))
        ends = np.cumsum([file.rows for file in files])
        return dict(zip((file.path for file in files), np.split(kept, ends[:-1]), strict=True))

    def _merge(
        self, state: State, day: str, group: list[LakeFile], kept: dict[str, NDArray[np.bool_]]
    ) -> tuple[State, int]:
        began_ms = self._now_ms()
        parts = []
        for file in group:
            part = lake_files.read_file(self._store, self._table, file)
            parts.append(part.filter(pa.array(kept[file.path])) if file.path in kept else part)
        order = [(name, "ascending") for name in ("partition", "offset", "row") if name in part.schema.names]
        rows = pa.concat_tables(parts).sort_by(order)
        files: tuple[LakeFile, ...] = ()
        if rows.num_rows:
            files = (self._write(day, group, rows),)
        if self._now_ms() - began_ms > self._rules.grace_ms // 2:
            raise Conflict(f"{self._table} {self._partition} {day}: merging took too long for grace_ms")
        repeats = sum(file.rows for file in group) - rows.num_rows
        replaced = tuple(file.path for file in group)
        record = Record(
            lake_log.REPLACE, "compaction", self._now_ms(), files=files, replaces=replaced, repeats=repeats
        )
        return self._log.append(state, record), rows.num_rows

    def _write(self, day: str, group: list[LakeFile], rows: pa.Table) -> LakeFile:
        """The merged file, read back and compared."""
        stem = f"{self._partition}-{group[0].first}-{group[-1].last}-c{uuid.uuid4().hex[:12]}"
        merged = lake_files.write_file(self._store, self._table, day, stem, rows)
        if not lake_files.read_file(self._store, self._table, merged).equals(rows):
            raise lake_files.BrokenFile(self._table, merged, "not what was written")
        return merged

    def _clean(self, state: State) -> None:
        before_ms = self._now_ms() - self._rules.grace_ms
        for path, at_ms in list(state.dropped.items()):
            if at_ms < before_ms:
                self._store.delete(f"{self._table}/{path}")
                del state.dropped[path]
        merged = re.compile(_MERGED.format(p=self._partition))
        named = {f"{self._table}/{path}" for path in (*state.files, *state.dropped)}
        for name, changed_s in self._store.names(self._table).items():
            old = changed_s * 1000 < before_ms
            if old and name not in named and merged.fullmatch(name.rpartition("/")[2]):
                self._store.delete(name)
        if state.version:
            self._log.checkpoint(state)
            self._log.clean(state, before_ms)


def wall_ms() -> int:
    """Wall time."""
    return time.time_ns() // 1_000_000


def closed_days(states: dict[int, State]) -> list[str]:
    """The days of a table that a later one has followed: little comes to them any more."""
    days = sorted({file.day for state in states.values() for file in state.files.values()})
    return days[:-1]


def groups(files: Sequence[LakeFile], target_bytes: int) -> list[list[LakeFile]]:
    """Consecutive files whose sizes add up to at most ``target_bytes`` (a larger one stands alone)."""
    found: list[list[LakeFile]] = []
    size = 0
    for file in files:
        if not found or size + file.bytes > target_bytes:
            found.append([])
            size = 0
        found[-1].append(file)
        size += file.bytes
    return found


def first_rows(keys: pa.Table) -> NDArray[np.bool_]:
    """Which rows are the first of their key (all columns of ``keys``)."""
    names = keys.schema.names
    numbered = keys.append_column("at", pa.array(np.arange(keys.num_rows)))
    firsts = numbered.group_by(names, use_threads=False).aggregate([("at", "min")])["at_min"].to_numpy()
    kept = np.zeros(keys.num_rows, bool)
    kept[firsts] = True
    return kept
