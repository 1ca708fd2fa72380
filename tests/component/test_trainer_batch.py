"""``trainer batch``: the model of a day from a real lake and a real store; killed, it goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.batch_lake import lake_of
from services.contract import model_store, topics
from services.contract.errors import NotFound, Unavailable
from services.contract.feature_view import FeatureView
from services.contract.lake_files import DAY_US, BrokenFile, split_days, write_file
from services.contract.lake_log import LakeLog, Record
from services.contract.lake_store import LakeStore
from services.contract.model_state import digest
from services.contract.times import MICROS
from services.contract.view_aggregates import Count, Feature
from services.contract.view_codec import canonical
from services.contract.view_events import Select
from services.contract.view_growth import SERVED_KEY, key_of
from services.contract.view_registry import FeatureSet
from services.runtime.kafka_producer import Producer
from services.runtime.settings import KafkaSettings
from tests.batch_kit import DAY, REQUESTS, START_OF_DAY_US, day_of_samples, read, settings
from tests.feature_kit import FEATURES, SHAPE
from trainer.batch import main, train_day
from trainer.batch_settings import FitSettings
from trainer.fit import Progress


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    return lake_of(tmp_path_factory.mktemp("lake"), day_of_samples())


def test_a_day_becomes_a_base_at_its_cut_and_the_same_run_gives_the_same_model(
    lake: str, tmp_path: Path
) -> None:
    saved = train_day(settings(lake, tmp_path))
    assert saved.manifest["sample_offsets"] == {"0": REQUESTS // 2, "1": REQUESTS // 2}
    assert (saved.sequence, saved.manifest["samples_trained"]) == (0, REQUESTS * 10)
    assert saved.manifest["metrics"]["auc"] > 0.62
    assert saved.manifest["metrics"]["rows"] == REQUESTS * 10
    again = train_day(settings(lake, tmp_path))
    assert again == saved
    elsewhere = train_day(settings(lake, tmp_path / "other"))
    assert digest(model_store.load_base(elsewhere.manifest_uri, SHAPE)[0]).hex() == saved.manifest["digest"]
    # What a killed run would have gone on from is gone.
    assert len(list(tmp_path.glob("batch/*/generation-*/*/state.safetensors"))) == 0


def test_a_shorter_day_is_cut_out_of_the_log_alike(lake: str, tmp_path: Path) -> None:
    morning = settings(lake, tmp_path, day=f"{DAY}T06:00:00", day_s=6 * 3_600)
    saved = train_day(morning)
    assert saved.manifest["sample_offsets"] == {"0": REQUESTS // 4, "1": REQUESTS // 4}
    assert saved.manifest["metrics"]["rows"] == REQUESTS * 10 / 4
    # Behind a parent that ends where it begins it is the same rows, learned further.
    night = train_day(settings(lake, tmp_path, day=DAY, day_s=6 * 3_600))
    behind = train_day(morning.model_copy(update={"parent": night.manifest_uri}))
    assert behind.manifest["samples_trained"] == night.manifest["samples_trained"] + REQUESTS * 10 / 4


def test_behind_a_parent_only_the_files_are_read_that_it_has_not_learned(tmp_path: Path) -> None:
    where = tmp_path / "lake"
    store = LakeStore(str(where))
    for partition, rows in day_of_samples().items():
        hour = (rows["impressed_us"].to_numpy() - START_OF_DAY_US) // (3_600 * MICROS)
        writer = LakeLog(store, "samples", partition)
        state = writer.append(writer.load(), Record("open", "test", 1))
        for number, part in enumerate((hour < 6, hour >= 6)):
            some = rows.filter(pa.array(part))
            first, last = some["offset"][0].as_py(), some["offset"][-1].as_py()
            files = tuple(
                write_file(store, "samples", day, f"{partition}-{number}", one)
                for day, one in split_days(some)
            )
            state = writer.append(state, Record("flush", "test", 2, first, last, files))
    night = train_day(settings(str(where), tmp_path, day_s=6 * 3_600))
    for path in where.glob("samples/day=*/*-0.parquet"):
        path.unlink()
    behind = train_day(settings(str(where), tmp_path, parent=night.manifest_uri))
    assert behind.manifest["samples_trained"] == REQUESTS * 10
    with pytest.raises(BrokenFile, match="missing"):
        train_day(settings(str(where), tmp_path))


def test_what_was_said_early_of_the_next_morning_is_learned_and_what_was_quarantined_is_not(
    tmp_path: Path,
) -> None:
    tables = day_of_samples()
    # Asked for before midnight, seen behind it, below the cut: nobody else learns it.
    column = tables[0].schema.get_field_index("impressed_us")
    moments = tables[0]["impressed_us"].to_numpy().copy()
    moments[tables[0]["offset"].to_numpy() == 700] = START_OF_DAY_US + DAY_US + 1
    tables[0] = tables[0].set_column(column, tables[0].schema.field(column), [moments])
    once = settings(lake_of(tmp_path / "lake", tables), tmp_path, fit=FitSettings(max_passes=1))
    saved = train_day(once)
    assert saved.manifest["samples_trained"] == saved.manifest["metrics"]["rows"] == REQUESTS * 10
    assert saved.manifest["sample_offsets"] == {"0": REQUESTS // 2, "1": REQUESTS // 2}
    less = train_day(once, [(0, 100, 130), (1, 0, 20)])
    assert less.manifest["samples_trained"] == less.manifest["metrics"]["rows"] == (REQUESTS - 50) * 10
    assert less.manifest["sample_offsets"] == saved.manifest["sample_offsets"]


def test_labels_by_chance_teach_nothing(tmp_path: Path) -> None:
    by_chance = lake_of(tmp_path / "lake", day_of_samples(chance=True))
    saved = train_day(settings(by_chance, tmp_path / "store"))
    assert 0.45 < saved.manifest["metrics"]["auc"] < 0.55


def test_from_a_parent_only_what_is_behind_its_offsets_is_learned(lake: str, tmp_path: Path) -> None:
    first = train_day(settings(lake, tmp_path))
    state, _ = model_store.load_base(first.manifest_uri, SHAPE)
    state.sample_offsets = {0: 500}
    parent = model_store.save_base(str(tmp_path), state, created_at_us=1)
    child = train_day(settings(lake, tmp_path, parent=parent.manifest_uri))
    assert child.manifest["metrics"]["rows"] == (300 + 800) * 10
    assert child.manifest["samples_trained"] == REQUESTS * 10 + (300 + 800) * 10
    assert child.manifest["sample_offsets"] == first.manifest["sample_offsets"]


def test_passes_end_when_the_newest_hours_are_foretold_no_better() -> None:
    from trainer.fit import Pass

    progress, how = Progress(), FitSettings(max_passes=9, patience=2, min_gain=0.01)
    losses = [0.5, 0.4, 0.395, 0.38, 0.375, 0.371]
    taken = []
    for number, loss in enumerate(losses, 1):
        assert not progress.over(how)
        taken.append(progress.take(Pass(number, {"log_loss": loss}, 0), how.min_gain))
    # 0.395 and 0.375 are gains too small to count; 0.38 is one over 0.4.
    assert taken == [True, True, False, True, False, False]
    assert progress.best == 4
    assert progress.over(how)
    assert Progress().over(FitSettings()) is False


def test_later_passes_count_nobody_again(lake: str, tmp_path: Path) -> None:
    once, often = (
        train_day(
            settings(
                lake, tmp_path / str(passes), fit=FitSettings(max_passes=passes, patience=9, min_gain=0.0)
            )
        )
        for passes in (1, 3)
    )
    for name in ("user", "item", "category"):
        tables = [model_store.load_base(one.manifest_uri, SHAPE)[0].tables[name] for one in (once, often)]
        (ids, slots), (other_ids, other_slots) = (table.ids() for table in tables)
        assert np.array_equal(ids, other_ids)
        if often.manifest["metrics"]["best_pass"] > 1:
            assert not np.array_equal(tables[0].rows[slots], tables[1].rows[other_slots])
        assert np.array_equal(tables[0].counts[slots], tables[1].counts[other_slots])
    assert often.manifest["metrics"]["passes"] == 3


def test_killed_after_any_pass_it_gives_the_model_that_it_would_have_given(lake: str, tmp_path: Path) -> None:
    arguments = [
        "--day", DAY, "--lake_uri", lake, "--register_model", "false", "--fit.max_passes", "4",
        "--fit.patience", "9", "--learning.minibatch_rows", "64",
    ]  # fmt: skip

    def run(store: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "trainer", "batch", "--model_store_uri", str(store), *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    whole = run(tmp_path / "whole")
    expected = whole.communicate(timeout=120)[0].splitlines()[-1]
    store = tmp_path / "killed"
    for passes in (1, 2):
        process = run(store)
        deadline = time.monotonic() + 60
        while len(list(store.glob("batch/*/pass-*.json"))) < passes and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    last = run(store)
    found = last.communicate(timeout=120)[0].splitlines()[-1]
    assert last.returncode == 0
    assert read(found) == read(expected)


@pytest.mark.parametrize(
    ("day", "says"),
    [("2001-01-01", "not over in partitions|rows to train"), ("2199-01-01", "not over in partitions 0, 1")],
)
def test_a_day_that_cannot_be_trained_is_named(
    lake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], day: str, says: str
) -> None:
    code = main(
        ["--day", day, "--lake_uri", lake, "--model_store_uri", str(tmp_path), "--register_model", "false"]
    )
    assert code == 1
    error = capsys.readouterr().err
    assert day in error
    assert any(part in error for part in says.split("|"))


VIEW = FeatureView(
    "item_acted", 1, ("item_id",), ("acted",), (Feature("acted", Count(Select("acted")), DAY_US),), DAY_US
)
WIDE = FeatureSet((*FEATURES.views, VIEW))


def widened(table: pa.Table, every: int) -> pa.Table:
    """Each ``every``-th record as it is logged once the view is served."""
    wide = table["offset"].to_numpy() % every == 0
    items = [
        row + np.float32(number % 7).tobytes() if new else row
        for number, (row, new) in enumerate(zip(table["item_features"].to_pylist(), wide, strict=True))
    ]
    hashes = np.where(wide, np.uint64(WIDE.schema_hash), np.uint64(FEATURES.schema_hash))
    changed = {"item_features": pa.array(items, pa.binary()), "schema_hash": pa.array(hashes)}
    for name, column in changed.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


@pytest.mark.integration
async def test_a_day_on_which_a_view_was_added_trains_either_set_each_on_its_own_columns(
    lake: str, tmp_path: Path, private_kafka
) -> None:
    mixed = lake_of(tmp_path / "lake", {p: widened(t, every=2) for p, t in day_of_samples().items()})
    kafka = KafkaSettings(bootstrap_servers=private_kafka.bootstrap)

    def train(where: str, name: str, **changes: object) -> model_store.SavedBase:
        how = settings(where, tmp_path / name.replace("+", "-"), kafka=kafka, feature_set=name, **changes)
        return train_day(how)

    with pytest.raises(NotFound, match=r"there are world$"):
        await asyncio.to_thread(train, mixed, "world+item_acted.1")
    producer = Producer(kafka, "test")
    await producer.start()
    await producer.send(topics.FEATURE_VIEWS.name, canonical(VIEW).encode(), key_of(VIEW))
    await producer.send(topics.FEATURE_VIEWS.name, key_of(VIEW), SERVED_KEY)
    await producer.stop()

    narrow = await asyncio.to_thread(train, mixed, "world")
    alone = await asyncio.to_thread(train_day, settings(lake, tmp_path / "alone"))
    assert narrow.manifest["digest"] == alone.manifest["digest"]
    assert narrow.manifest["metrics"]["left_out_lacks_columns"] == 0
    wide = await asyncio.to_thread(train, mixed, "world+item_acted.1")
    assert wide.manifest["item_columns"][-1] == "item_acted_acted"
    assert wide.manifest["feature_schema_hash"] == f"{WIDE.schema_hash:016x}"
    assert wide.manifest["metrics"]["left_out_lacks_columns"] == REQUESTS // 2 * 10
    assert wide.manifest["metrics"]["rows"] == REQUESTS // 2 * 10

    away = KafkaSettings(bootstrap_servers="127.0.0.1:1", connect_timeout_ms=300)
    with pytest.raises(Unavailable):
        await asyncio.to_thread(train_day, settings(mixed, tmp_path / "away", kafka=away))
