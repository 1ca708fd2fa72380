"""A lake that holds day 0 of the simulated world, a day that the batch trainer can close."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loadgen import day0, day0_files
from loadgen.day0_log import END_US
from loadgen.day0_samples import table
from loadgen.world_config import WorldConfig
from services.contract.feature_sets import WORLD
from services.contract.lake_files import DAY_US, split_days, write_file
from services.contract.lake_log import LakeLog, Record
from services.contract.lake_store import LakeStore

# Day 0 is seen through windows two hours apart, of which the last one ends at midnight: an hour later that
# one is the next morning, whose decided negatives close the day, and all others are the day before.
LATER_US = 3_600_000_000


@dataclass(frozen=True)
class Day:
    """What there is to train: its UTC day, the lake, rows of it."""

    day: str
    lake: Path
    rows: int


def lake_of(root: Path, tables: Mapping[int, pa.Table]) -> str:
    """Samples by partition as the lake's writer leaves them; where they are."""
    store = LakeStore(str(root))
    for partition, samples in tables.items():
        log = LakeLog(store, "samples", partition)
        state = log.append(log.load(), Record("open", "bench", 1))
        files = tuple(
            write_file(store, "samples", day, f"{partition}-{day}", rows) for day, rows in split_days(samples)
        )
        last = int(samples["offset"].to_numpy().max())
        log.append(state, Record("flush", "bench", 2, 0, last, files))
    return str(root)


def write_day(folder: Path, session_s: float) -> Day:
    """Simulates the day (cached by its numbers) and writes its samples as one partition."""
    source = day0.day0_folder(WorldConfig(session_s=session_s), WORLD)
    rows = table(pq.read_table(source / day0_files.SAMPLES)["value"].to_pylist(), LATER_US)
    lake_of(folder, {0: rows})
    before = int((rows["impressed_us"].to_numpy() < END_US).sum())
    return Day(str(np.datetime64(END_US // DAY_US - 1, "D")), folder, before)
