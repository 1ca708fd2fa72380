"""Reads everything that counts and names what is wrong with it. Synchronous.

| problem | means |
|---|---|
| broken | a file is missing, cut off or damaged; the offsets that it should hold |
| hole | offsets that Kafka no longer held when the writer wanted them |
| twice | an offset (of samples: a row of one) stands in more than one row |
| repeats | sample ids that came more than once; compaction keeps the first of each |
| unreadable | the log of a partition itself is damaged |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from services.contract import lake_files
from services.contract.errors import LoopError
from services.contract.lake_files import BrokenFile
from services.contract.lake_log import LakeFile, LakeLog, State, partitions
from services.contract.lake_store import LakeStore
from services.lake.compaction import SAMPLE_ID, first_rows


@dataclass(frozen=True)
class Problem:
    """One finding. ``first`` to ``last`` are the offsets that it is about, ``rows`` how many rows."""

    table: str
    partition: int
    problem: str
    detail: str
    first: int = 0
    last: int = 0
    rows: int = 0
    # The file, when it is about one.
    path: str = ""


@dataclass(frozen=True)
class Totals:
    """What is there."""

    table: str
    partition: int
    files: int
    rows: int
    bytes: int
    next_offset: int | None
    bad_records: int
    repeats_dropped: int


def check(store: LakeStore, table: str) -> tuple[list[Totals], list[Problem]]:
    """Every file of a table, every page of it."""
    totals: list[Totals] = []
    problems: list[Problem] = []
    for partition in partitions(store, table):
        try:
            state = LakeLog(store, table, partition).load()
        except LoopError as error:
            problems.append(Problem(table, partition, "unreadable", str(error)))
            continue
        problems += [
            Problem(table, partition, "hole", "no longer in Kafka", first, last, last - first + 1)
            for first, last in state.holes
        ]
        problems += _files(store, table, partition, state)
        totals.append(_totals(table, partition, state))
    return totals, problems


def _totals(table: str, partition: int, state: State) -> Totals:
    files = state.files.values()
    return Totals(
        table,
        partition,
        len(files),
        sum(file.rows for file in files),
        sum(file.bytes for file in files),
        state.next_offset,
        state.bad_records,
        state.repeats,
    )


def _files(store: LakeStore, table: str, partition: int, state: State) -> list[Problem]:
    found: list[Problem] = []
    place = ["offset", "row"] if table == "samples" else ["offset"]
    wanted = [*place, *SAMPLE_ID] if table == "samples" else place
    parts = [lake_files.projected(table, wanted).empty_table()]
    for file in sorted(state.files.values(), key=lambda file: (file.first, file.day)):
        try:
            rows = lake_files.read_file(store, table, file)
        except BrokenFile as error:
            found.append(broken(partition, error))
        else:
            parts.append(rows.select(wanted))
    everything = pa.concat_tables(parts)
    found += _twice(table, partition, "twice", everything, place)
    if table == "samples":
        found += _twice(table, partition, "repeats", everything, SAMPLE_ID)
    return found


def broken(partition: int, error: BrokenFile) -> Problem:
    """A file that counts and cannot be read."""
    file: LakeFile = error.file
    return Problem(
        error.table,
        partition,
        "broken",
        error.why,
        file.first,
        file.last,
        file.rows,
        f"{error.table}/{file.path}",
    )


def _twice(table: str, partition: int, problem: str, rows: pa.Table, key: list[str]) -> list[Problem]:
    again = ~first_rows(rows.select(key))
    count = int(again.sum())
    if not count:
        return []
    offsets = rows["offset"].to_numpy()[np.flatnonzero(again)]
    detail = f"{count} rows with a {', '.join(key)} that was there before"
    return [Problem(table, partition, problem, detail, int(offsets.min()), int(offsets.max()), count)]
