"""``python -m loadgen day0-samples``: the samples of a seeded stack's day 0, into its lake.

They are what the joiner would have said of day 0 (day0_join), at the times that the seed gave that day. A
seed does not write them by itself: only who trains on the past of before the topics needs them.
"""

from __future__ import annotations

import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from loadgen import day0, day0_files, world_clock
from loadgen.settings import Day0SamplesSettings
from services.contract.errors import InvalidInput, MalformedRecord
from services.contract.lake_history import write_samples
from services.contract.lake_rows import LogRecord, to_rows
from services.contract.lake_store import LakeStore

HISTORY = "day0"
_TIMES = ("occurred_us", "impressed_us", "acted_us", "scored_us", "joined_us")


def table(values: list[bytes], by_us: int) -> pa.Table:
    """SampleRecord bytes as rows of the lake's samples, as if all had happened ``by_us`` later.
    MalformedRecord: one of them is none."""
    rows, bad = to_rows("samples", [LogRecord(0, offset, 0, value) for offset, value in enumerate(values)])
    if bad:
        raise MalformedRecord.one(f"sample {bad[0].offset}", bad[0].detail, "a sample of day 0")
    for name in _TIMES:
        moved = pc.add(rows[name], by_us)
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), moved)
    appended_ms = pc.divide(rows["joined_us"], 1000)
    at = rows.schema.get_field_index("appended_ms")
    return rows.set_column(at, rows.schema.field(at), appended_ms)


def run(settings: Day0SamplesSettings) -> int:
    """Writes them; raises LoopError by name."""
    if not settings.lake_uri:
        raise InvalidInput.one("lake_uri", "", "the lake of the seeded stack")
    config = settings.sim.config()
    clock = world_clock.read(settings.run_dir, config)
    folder = day0.day0_folder(config, settings.feature_set)
    by_us = clock.origin_us - int(day0_files.read_meta(folder)["end_us"])
    values = pq.read_table(folder / day0_files.SAMPLES)["value"].to_pylist()
    rows = table(values, by_us)
    write_samples(LakeStore(settings.lake_uri), HISTORY, rows)
    print(f"day0-samples: {rows.num_rows:,} samples of day 0 to the lake", file=sys.stderr)
    return 0
