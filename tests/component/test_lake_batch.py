"""``python -m services.lake join|reconcile`` over a lake on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from oracles.join_lake import TABLES, rows_of
from oracles.join_logs import Logs, feed_all
from oracles.join_traffic import closing, logs_by_partition, traffic

from rec.events.v1 import events_pb2 as ev
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.join_events import SOURCES
from services.contract.join_output import Sample
from services.contract.lake_files import scan
from services.contract.lake_rows import SCHEMAS, LogRecord
from services.contract.lake_store import LakeStore
from services.lake.batch import command
from services.lake.partition import PartitionWriter

CONFIG = JoinConfig(window_us=2_000_000, bound_us=300_000)
WINDOWS = ["--window_ms", "2000", "--bound_ms", "300"]
# A second before midnight (UTC), so that the traffic's events are of two days.
DAY, NEXT, LAST = "2001-09-09", "2001-09-10", "2001-09-11"
START_US = 1_000_079_999_000_000


def write(root: Path, table: str, partition: int, raws: list[bytes]) -> None:
    """Two flushes of one partition."""
    writer = PartitionWriter(LakeStore(str(root)), table, partition)
    writer.open()
    records = [LogRecord(partition, offset, 1, raw) for offset, raw in enumerate(raws)]
    half = len(records) // 2
    writer.flush(records[:half], 0)
    writer.flush(records[half:], half)


def stream(logs: Logs) -> list[bytes]:
    """The records that a joiner would have written to samples."""
    said = feed_all(JoinTask(CONFIG), logs, [])
    return [ev.SampleRecord(sample=o.message).SerializeToString() for o in said if isinstance(o, Sample)]


@pytest.fixture
def partitions() -> list[Logs]:
    return logs_by_partition([*traffic(4, 500, start_us=START_US), *closing(at_us=START_US + 10**9)])


@pytest.fixture
def lake(tmp_path: Path, partitions: list[Logs]) -> Path:
    """A lake with everything but samples."""
    for partition, logs in enumerate(partitions):
        for source, table in zip(SOURCES, TABLES, strict=True):
            write(tmp_path, table, partition, logs[source])
    return tmp_path


def run(name: str, lake: Path, *more: str) -> int:
    return command(name, ["--lake_uri", str(lake), *WINDOWS, *more])


def test_join_writes_the_streams_samples_and_reasons(
    lake: Path, partitions: list[Logs], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for partition, logs in enumerate(partitions):
        write(lake, "samples", partition, stream(logs))
    assert run("join", lake, "--out", str(tmp_path / "out")) == 0
    samples = pq.read_table(tmp_path / "out" / "samples.parquet")
    assert samples.schema.equals(SCHEMAS["samples"])
    assert rows_of(samples) == rows_of(scan(str(lake), "samples"))
    reasons = pq.read_table(tmp_path / "out" / "reasons.parquet")["reason"].to_pylist()
    line = json.loads(capsys.readouterr().out)
    assert line["samples"] == samples.num_rows > 500
    assert sum(line["reasons"].values()) == len(reasons) > 0


def test_reconcile_passes_an_equal_stream_and_fails_one_that_lost_a_record(
    lake: Path, partitions: list[Logs], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for partition, logs in enumerate(partitions[:-1]):
        write(lake, "samples", partition, stream(logs))
    whole = stream(partitions[-1])
    write(lake, "samples", len(partitions) - 1, whole[1:])
    out = tmp_path / "out"
    assert run("reconcile", lake, "--out", str(out)) == 1
    said = json.loads((out / "reconcile.json").read_text())
    lost = len(ev.SampleRecord.FromString(whole[0]).sample.item_ids) // 8
    assert (said["counts"]["missing_in_stream"], said["unexplained"]) == (lost, lost)
    assert "missing_in_stream" in capsys.readouterr().out


def test_each_day_alone_reconciles_as_the_whole_does(
    lake: Path, partitions: list[Logs], capsys: pytest.CaptureFixture[str]
) -> None:
    for partition, logs in enumerate(partitions):
        write(lake, "samples", partition, stream(logs))
    counts = []
    for days in ([], ["--since", DAY, "--until", NEXT], ["--since", NEXT, "--until", LAST]):
        assert run("reconcile", lake, *days) == 0
        counts.append(int(capsys.readouterr().out.split(" rows of the stream")[0].replace(",", "")))
    assert counts[0] == counts[1] + counts[2]
    assert min(counts) > 100


def test_a_lake_that_cannot_be_read_or_windows_that_contradict_end_with_2(
    lake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = next((lake / "impressions").rglob("*.parquet"))
    broken.write_bytes(broken.read_bytes()[:-9])
    assert run("reconcile", lake) == 2
    assert broken.name in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("join", lake, "--since", "yesterday")
