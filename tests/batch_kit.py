"""What the tests of the batch trainer share: a day of samples in a lake, and the settings that train it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from services.contract import model_store, times
from services.contract.lake_files import DAY_US
from services.contract.lake_rows import LogRecord, to_table
from tests.trainer_kit import START_US, World, sample_bytes
from trainer.batch_settings import BatchSettings
from trainer.settings import AdmissionSettings, LearningSettings

START_OF_DAY_US = START_US // DAY_US * DAY_US
DAY = str(np.datetime64(START_OF_DAY_US // DAY_US, "D"))
PARTITIONS = 2
REQUESTS = 1_600


def day_of_samples(chance: bool = False) -> dict[int, pa.Table]:
    """A day of two partitions, evenly spread, and one decided row of the next morning in each."""
    world = World(5, users=80, items=60)
    pace_us = DAY_US // REQUESTS
    random = np.random.default_rng(3)
    tables = {}
    for partition in range(PARTITIONS):
        records = []
        for offset in range(REQUESTS // PARTITIONS + 1):
            sample = world.sample()
            if chance:
                sample.labels = (random.random(10) < 0.3).astype("<f4").tobytes()
            at_us = START_OF_DAY_US + min(offset * PARTITIONS * pace_us + partition, DAY_US)
            sample.occurred_at.CopyFrom(times.from_us(at_us))
            sample.impressed_at.CopyFrom(times.from_us(at_us))
            if offset == REQUESTS // PARTITIONS:
                sample.labels = bytes(len(sample.labels))
            records.append(LogRecord(partition, offset, at_us // 1000, sample_bytes(sample)))
        tables[partition] = to_table("samples", records)
    return tables


def settings(lake: str, store: Path, **changes: object) -> BatchSettings:
    values: dict[str, object] = {
        "day": DAY,
        "lake_uri": lake,
        "model_store_uri": str(store),
        "register_model": False,
        "learning": LearningSettings(minibatch_rows=256),
        "admission": AdmissionSettings(min_count_item=1),
    }
    return BatchSettings(**(values | changes))  # type: ignore[arg-type]


def read(manifest_uri: str) -> tuple[object, ...]:
    manifest = model_store.read_manifest(manifest_uri).manifest
    return manifest["digest"], manifest["sample_offsets"], manifest["metrics"]
