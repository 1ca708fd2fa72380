"""The lake on a real folder and on a store in memory: flushes, fences, compaction, damage, evolution."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.join_logs import action, one_sample

from rec.events.v1 import events_pb2 as ev
from services.contract import lake_files, lake_log, times
from services.contract.errors import Conflict, MalformedRecord
from services.contract.lake_files import BrokenFile, scan
from services.contract.lake_log import LakeLog
from services.contract.lake_rows import SCHEMAS, LogRecord, to_table
from services.contract.lake_store import LakeStore
from services.lake.check import check
from services.lake.compaction import Compactor, Rules
from services.lake.partition import PartitionWriter

DAY_US = 86_400_000_000
START_US = 20_000 * DAY_US
DAYS = ("2024-10-04", "2024-10-05")
NOW_MS = 1_800_000_000_000


@pytest.fixture(params=["folder", "memory"])
def root(request, tmp_path: Path) -> str:
    return str(tmp_path / "lake") if request.param == "folder" else f"memory://{uuid.uuid4().hex}/lake"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


def actions(first: int, last: int) -> list[LogRecord]:
    """One record per offset, on two days in turn."""
    return [
        LogRecord(0, offset, NOW_MS, action(f"r{offset}", START_US + offset % 2 * DAY_US + offset, offset))
        for offset in range(first, last + 1)
    ]


def samples(first: int, last: int, requests: int = 10**9) -> list[LogRecord]:
    """Records of three rows; the same request again after ``requests`` offsets."""
    found = []
    for offset in range(first, last + 1):
        message = ev.TrainingSample()
        message.CopyFrom(one_sample())
        message.request_id = f"r{offset % requests}"
        times.set_us(message.occurred_at, START_US + offset % requests % 2 * DAY_US)
        found.append(LogRecord(0, offset, NOW_MS, ev.SampleRecord(sample=message).SerializeToString()))
    return found


RECORDS = {"actions": actions, "samples": samples}


def written(
    root: str | LakeStore, table: str, ranges: list[tuple[int, int]], make: Callable | None = None
) -> PartitionWriter:
    """A lake of one partition, one flush per range of offsets."""
    writer = PartitionWriter(LakeStore(root) if isinstance(root, str) else root, table, 0)
    writer.open()
    for first, last in ranges:
        writer.flush((make or RECORDS[table])(first, last), first)
    return writer


def places(root: str, table: str, **wanted) -> list[tuple]:
    """(offset[, row]) of every row, sorted."""
    columns = ["offset", "row"] if table == "samples" else ["offset"]
    found = scan(root, table, columns=columns, **wanted)
    return sorted(zip(*(found[name].to_pylist() for name in columns), strict=True))


def each_once(table: str, first: int, last: int) -> list[tuple]:
    if table == "samples":
        return [(offset, row) for offset in range(first, last + 1) for row in range(3)]
    return [(offset,) for offset in range(first, last + 1)]


# -- writing and reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["actions", "samples"])
def test_every_row_of_every_flush_is_read_once_by_day(root, table):
    written(root, table, [(0, 9), (10, 24)])
    assert places(root, table) == each_once(table, 0, 24)
    days = {day: {offset for offset, *_ in places(root, table, days=[day])} for day in DAYS}
    assert days == {DAYS[0]: set(range(0, 25, 2)), DAYS[1]: set(range(1, 25, 2))}
    assert places(root, table, days=["1999-01-01"]) == []
    assert scan(root, "impressions").schema.equals(SCHEMAS["impressions"])


def test_what_is_read_is_what_was_written(root):
    written(root, "samples", [(0, 1)])
    rows = scan(root, "samples").sort_by([("offset", "ascending"), ("row", "ascending")])
    assert rows.equals(to_table("samples", samples(0, 1)))


def test_a_flush_that_died_before_its_record_is_invisible_and_is_removed_by_the_next_owner(root):
    writer = written(root, "actions", [(0, 9)])
    store = FailingStore(root, fail_at=2, kind="create")
    writer._store = writer._log._store = store
    store.armed = True
    with pytest.raises(Killed):
        writer.flush(actions(10, 19), 10)
    names = [name for name in store.names("actions") if name.endswith(".parquet")]
    assert len(names) == 4, "both files of the flush had been written"
    assert places(root, "actions") == each_once("actions", 0, 9)
    heir = PartitionWriter(LakeStore(root), "actions", 0)
    heir.open()
    assert heir.next_offset == 10
    assert len([name for name in store.names("actions") if name.endswith(".parquet")]) == 2
    heir.flush(actions(10, 19), 10)
    assert places(root, "actions") == each_once("actions", 0, 19)


def test_a_writer_that_comes_back_after_its_successor_opened_adds_nothing(root):
    zombie = written(root, "actions", [(0, 9)])
    heir = PartitionWriter(LakeStore(root), "actions", 0)
    heir.open()
    with pytest.raises(Conflict, match="has opened the partition since"):
        zombie.flush(actions(10, 14), 10)
    heir.flush(actions(10, 12), 10)
    with pytest.raises(Conflict):
        zombie.flush(actions(10, 14), 10)
    assert places(root, "actions") == each_once("actions", 0, 12)


def test_a_flush_whose_answer_was_lost_may_be_repeated(root):
    writer = written(root, "actions", [(0, 9)])
    store = FailingStore(root, fail_at=0, kind="create", after=True)
    kept = writer._store
    writer._store = writer._log._store = store
    store.armed = True
    with pytest.raises(Killed):
        writer.flush(actions(10, 19), 10)
    writer._store = writer._log._store = kept
    writer.flush(actions(10, 19), 10)
    writer.flush(actions(20, 21), 20)
    assert places(root, "actions") == each_once("actions", 0, 21)
    assert check(kept, "actions")[1] == []


def test_offsets_that_kafka_no_longer_had_are_named_as_a_hole(root):
    written(root, "actions", [(0, 9), (15, 19)])
    (problem,) = check(LakeStore(root), "actions")[1]
    assert (problem.problem, problem.first, problem.last, problem.rows) == ("hole", 10, 14, 5)


def test_a_poison_sample_is_counted_and_its_offset_is_covered(root):
    writer = PartitionWriter(LakeStore(root), "samples", 0)
    writer.open()
    writer.flush([LogRecord(0, 0, 0, b"\xff"), *samples(1, 2)], 0)
    writer.flush([LogRecord(0, 3, 0, None)], 3)
    assert writer.next_offset == 4
    assert places(root, "samples") == each_once("samples", 1, 2)
    ((totals,), problems) = check(LakeStore(root), "samples")
    assert (totals.bad_records, totals.next_offset, problems) == (2, 4, [])


# -- the log ---------------------------------------------------------------------------------------------


def test_a_checkpoint_and_cleaning_leave_the_state_as_it_was(root):
    ranges = [(at, at) for at in range(lake_log.CHECKPOINT_EVERY + 5)]
    written(root, "actions", ranges)
    store = LakeStore(root)
    log = LakeLog(store, "actions", 0)
    state = log.load()
    assert f"actions/_log/0/{lake_log.CHECKPOINT_EVERY:020d}.checkpoint.json" in store.names("actions/_log")
    log.checkpoint(state)
    assert log.clean(state, 10**18) == len(ranges) + 1
    assert log.load() == state
    assert places(root, "actions") == each_once("actions", 0, ranges[-1][1])


def test_a_writer_that_slept_through_compactions_and_cleanings_goes_on(root):
    writer = written(root, "actions", [(0, 9), (10, 19)])
    for hours in (0, 2, 4, 6):
        compactor(root, "actions", hours=hours).run(DAYS)
    writer.flush(actions(20, 29), 20)
    assert places(root, "actions") == each_once("actions", 0, 29)


def test_a_log_with_a_record_missing_is_refused_by_name(folder):
    written(folder, "actions", [(0, 1), (2, 3), (4, 5)])
    (Path(folder) / "actions/_log/0/00000000000000000003.json").unlink()
    with pytest.raises(MalformedRecord, match="record 4: record 3"):
        scan(folder, "actions")
    (problem,) = check(LakeStore(folder), "actions")[1]
    assert problem.problem == "unreadable"


def test_a_log_record_that_is_cut_off_is_refused_by_name(folder):
    written(folder, "actions", [(0, 1)])
    path = Path(folder) / "actions/_log/0/00000000000000000002.json"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(MalformedRecord, match=r"00002\.json=40 bytes"):
        scan(folder, "actions")


# -- damage and evolution --------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[40] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "why"), [(cut, r"\d+ of \d+ bytes"), (flip, "CRC"), (Path.unlink, "missing")]
)
def test_a_damaged_file_is_named_with_the_offsets_that_it_should_hold(folder, damage, why):
    written(folder, "actions", [(0, 9), (10, 19)])
    (path,) = Path(folder).glob(f"actions/day={DAYS[1]}/0-10-19-*.parquet")
    damage(path)
    with pytest.raises(BrokenFile, match=f"{path.name}=.*{why}.*: 5 rows of offsets 11 to 19"):
        scan(folder, "actions")
    assert len(places(folder, "actions", days=[DAYS[0]])) == 10, "the other day can be read"
    (problem,) = check(LakeStore(folder), "actions")[1]
    assert (problem.problem, problem.first, problem.last, problem.rows) == ("broken", 11, 19, 5)
    assert problem.path.endswith(path.name)
    with pytest.raises(BrokenFile):
        compactor(folder, "actions").run(DAYS)


def test_older_files_answer_null_for_columns_that_came_later(root, monkeypatch):
    full = SCHEMAS["actions"]
    older = pa.schema([one for one in full if one.name not in ("dwell_us", "kind")])
    older = older.set(older.get_field_index("items"), pa.field("items", pa.int16()))
    monkeypatch.setitem(SCHEMAS, "actions", older)
    writer = written(root, "actions", [(0, 9)])
    monkeypatch.setitem(SCHEMAS, "actions", full)
    writer.flush(actions(10, 19), 10)
    for _ in range(2):
        rows = scan(root, "actions", columns=["offset", "kind", "items"]).sort_by("offset").to_pylist()
        assert [row["kind"] for row in rows] == [None] * 10 + [1] * 10
        assert scan(root, "actions").schema.equals(full)
        compactor(root, "actions").run(DAYS)
    (_, file), *_ = lake_files.files(LakeStore(root), "actions")
    assert file.rows == 10, "old and new files were merged"


def test_columns_that_only_a_newer_writer_knows_are_left_out(root, monkeypatch):
    full = SCHEMAS["actions"]
    written(root, "actions", [(0, 9)])
    monkeypatch.setitem(SCHEMAS, "actions", pa.schema([full.field("offset"), full.field("item_id")]))
    assert scan(root, "actions").column_names == ["offset", "item_id"]


# -- compaction ------------------------------------------------------------------------------------------


def compactor(root: str | LakeStore, table: str, hours: float = 0.0, **rules) -> Compactor:
    store = LakeStore(root) if isinstance(root, str) else root
    return Compactor(store, table, 0, Rules(**rules), lambda: int((time.time() + hours * 3600) * 1000))


@pytest.mark.parametrize("table", ["actions", "samples"])
def test_small_files_of_a_day_become_one_in_the_order_of_the_log(root, table):
    written(root, table, [(0, 9), (10, 24), (25, 25)])
    before = scan(root, table).sort_by(
        [(n, "ascending") for n in ("offset", "row") if n in SCHEMAS[table].names]
    )
    first, second = compactor(root, table).run(DAYS)
    assert (first.day, first.files, first.repeats) == (DAYS[0], 2, 0)
    assert (second.day, second.files) == (DAYS[1], 3)
    found = lake_files.files(LakeStore(root), table)
    assert [(file.day, file.first, file.last) for _, file in found] == [(DAYS[0], 0, 24), (DAYS[1], 1, 25)]
    for day, (_, file) in zip(DAYS, found, strict=True):
        rows = lake_files.read_file(LakeStore(root), table, file)
        assert file.day == day
        assert rows["offset"].to_pylist() == sorted(rows["offset"].to_pylist())
    after = scan(root, table).sort_by(
        [(n, "ascending") for n in ("offset", "row") if n in SCHEMAS[table].names]
    )
    assert after.equals(before)
    assert compactor(root, table).run(DAYS) == [], "nothing is left to do"


def test_files_beyond_the_target_size_stay_apart(root):
    written(root, "actions", [(at, at + 1) for at in range(0, 12, 2)])
    size = max(file.bytes for _, file in lake_files.files(LakeStore(root), "actions"))
    done = compactor(root, "actions", target_bytes=2 * size).run(DAYS[:1])
    assert [merge.files for merge in done] == [2, 2, 2]
    assert places(root, "actions") == each_once("actions", 0, 11)


def test_a_repeated_sample_id_is_dropped_and_the_first_is_kept(root):
    written(
        root, "samples", [(0, 9), (10, 14), (15, 29)], lambda first, last: samples(first, last, requests=10)
    )
    assert len(places(root, "samples")) == 90
    (repeats,) = check(LakeStore(root), "samples")[1]
    assert (repeats.problem, repeats.rows) == ("repeats", 60)
    done = compactor(root, "samples").run(DAYS)
    assert sum(merge.repeats for merge in done) == 60
    assert places(root, "samples") == each_once("samples", 0, 9)
    ((totals,), problems) = check(LakeStore(root), "samples")
    assert (totals.repeats_dropped, problems) == (60, [])


def test_a_file_of_nothing_but_repeats_leaves_nothing(root):
    written(root, "samples", [(0, 9), (10, 19)], lambda first, last: samples(first, last, requests=10))
    size = max(file.bytes for _, file in lake_files.files(LakeStore(root), "samples"))
    compactor(root, "samples", target_bytes=size).run(DAYS)
    assert places(root, "samples") == each_once("samples", 0, 9)


def test_the_writer_goes_on_beside_a_compaction(root):
    writer = written(root, "actions", [(0, 9), (10, 19)])
    compactor(root, "actions").run(DAYS)
    writer.flush(actions(20, 29), 20)
    compactor(root, "actions").run(DAYS)
    writer.flush(actions(30, 39), 30)
    assert places(root, "actions") == each_once("actions", 0, 39)


def test_of_two_compactions_of_the_same_files_one_gives_up(root):
    written(root, "actions", [(0, 9), (10, 19)])
    rival = Rival(root, lambda: compactor(root, "actions").run(DAYS))
    with pytest.raises(Conflict, match="does not count any more"):
        compactor(rival, "actions").run(DAYS)
    assert places(root, "actions") == each_once("actions", 0, 19)


def test_replaced_files_stay_until_the_grace_has_passed(root):
    written(root, "actions", [(0, 9), (10, 19)])
    store = LakeStore(root)
    old = {f"actions/{file.path}" for _, file in lake_files.files(store, "actions")}
    compactor(root, "actions").run(DAYS)
    assert old <= set(store.names("actions"))
    compactor(root, "actions", hours=0.9).run(DAYS)
    assert old <= set(store.names("actions"))
    compactor(root, "actions", hours=1.1).run(DAYS)
    assert not old & set(store.names("actions"))
    assert places(root, "actions") == each_once("actions", 0, 19)
    assert check(store, "actions")[1] == []


def test_a_reader_overtaken_by_compaction_and_cleaning_begins_anew(root, monkeypatch):
    written(root, "actions", [(0, 9), (10, 19)])
    read, calls = lake_files.read_file, []

    def slow(store, table, file, columns=None):
        calls.append(file.path)
        if len(calls) == 2:
            monkeypatch.setattr(lake_files, "read_file", read)
            compactor(root, "actions").run(DAYS)
            compactor(root, "actions", hours=2).run(DAYS)
            monkeypatch.setattr(lake_files, "read_file", slow)
        return read(store, table, file, columns)

    monkeypatch.setattr(lake_files, "read_file", slow)
    assert places(root, "actions") == each_once("actions", 0, 19)
    assert len(set(calls)) == 4, "two of the old files, both of the new"


# -- killed ----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What SIGKILL would have done."""


class FailingStore(LakeStore):
    """Dies at its n-th change: before it, after it, or having written half of a file aside."""

    def __init__(
        self, root: str, fail_at: int, kind: str = "", after: bool = False, torn: bool = False
    ) -> None:
        super().__init__(root)
        self.left = fail_at if not kind else 0
        self.kind, self.after, self.torn, self.armed = kind, after, torn, not kind

    def _change(self, kind: str, name: str, data: bytes, work: Callable) -> None:
        dies = self.armed and kind == (self.kind or kind) and self.left == 0
        self.left -= self.armed and kind == (self.kind or kind)
        if dies and not self.after:
            if self.torn and data:
                folder, _, last = name.rpartition("/")
                LakeStore(self.root).put(
                    f"{folder}/.{last}.{uuid.uuid4().hex}", bytes(data)[: len(data) // 2]
                )
            raise Killed
        work()
        if dies:
            raise Killed

    def put(self, name, data):
        self._change("put", name, data, lambda: super(FailingStore, self).put(name, data))

    def create(self, name, data):
        self._change("create", name, data, lambda: super(FailingStore, self).create(name, data))

    def delete(self, name):
        self._change("delete", name, b"", lambda: super(FailingStore, self).delete(name))


class Rival(LakeStore):
    """Lets another one work just before the first record is created."""

    def __init__(self, root: str, work: Callable) -> None:
        super().__init__(root)
        self._work: Callable | None = work

    def create(self, name, data):
        work, self._work = self._work, None
        if work is not None:
            work()
        super().create(name, data)


@pytest.mark.parametrize(("after", "torn"), [(False, False), (False, True), (True, False)])
def test_a_compaction_killed_at_any_step_leaves_every_row_once(tmp_path, after, torn):
    ranges, step, finished = [(0, 9), (10, 19), (20, 29)], 0, False
    while not finished:
        folder = str(tmp_path / f"{step}")
        written(folder, "samples", ranges, lambda first, last: samples(first, last, requests=20))
        compactor(folder, "samples").run(DAYS[:1])
        try:
            # Later, so that it also deletes what the first run has replaced.
            compactor(FailingStore(folder, step, after=after, torn=torn), "samples", hours=2).run(DAYS)
            finished = True
        except Killed:
            found = Counter(places(folder, "samples"))
            assert set(found.values()) == {1}
            assert set(each_once("samples", 0, 19)) <= set(found) <= set(each_once("samples", 0, 29))
        compactor(folder, "samples", hours=4).run(DAYS)
        assert places(folder, "samples") == each_once("samples", 0, 19)
        compactor(folder, "samples", hours=6).run(DAYS)
        left = [path for path in Path(folder).rglob("*.parquet*") if path.is_file()]
        assert len(left) == 2, "nothing is left behind for ever"
        step += 1
    assert step > 6


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_writer_and_compactor_killed_at_random_points_keep_every_row_once(tmp_path_factory, seed):
    rng = random.Random(seed)
    folder = str(tmp_path_factory.mktemp("lake"))
    table = rng.choice(["actions", "samples"])
    reached, hours = -1, 0.0
    for _ in range(12):
        store = FailingStore(folder, rng.randrange(14), after=rng.random() < 0.5, torn=rng.random() < 0.5)
        try:
            if rng.random() < 0.7:
                writer = PartitionWriter(store, table, 0)
                writer.open()
                while True:
                    first = writer.next_offset or 0
                    writer.flush(RECORDS[table](first, first + rng.randrange(6)), first)
            hours += rng.choice([0.1, 2])
            compactor(store, table, hours=hours).run(DAYS)
        except Killed:
            pass
        found = places(folder, table)
        last = found[-1][0] if found else -1
        assert found == each_once(table, 0, last)
        assert last >= reached, "what was there stays there"
        reached = last
    assert check(LakeStore(folder), table)[1] == []


def test_the_compact_command_killed_by_the_system_again_and_again(folder):
    written(folder, "samples", [(at, at + 4) for at in range(0, 300, 5)])
    command = [sys.executable, "-m", "services.lake", "compact", "--lake_uri", folder, "--day", DAYS[0]]
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    whole_s = time.monotonic() - began
    rng = random.Random(1)
    for day in (*DAYS, *DAYS):
        child = subprocess.Popen([*command[:-1], day], stdout=subprocess.DEVNULL, env={**os.environ})
        time.sleep(rng.uniform(0.5, 1.0) * whole_s)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert places(folder, "samples") == each_once("samples", 0, 299)
    done = subprocess.run([*command[:-1], DAYS[1]], check=True, capture_output=True, timeout=60)
    assert done.stderr == b""
    checked = subprocess.run(
        [*command[:3], "check", "--lake_uri", folder], capture_output=True, timeout=60, check=True
    )
    lines = [json.loads(line) for line in checked.stdout.splitlines()]
    assert [(line["table"], line["files"], line["rows"]) for line in lines] == [("samples", 2, 900)]


def test_the_check_command_fails_and_says_what_is_broken(folder):
    written(folder, "actions", [(0, 9)])
    (path,) = Path(folder).glob(f"actions/day={DAYS[0]}/*.parquet")
    cut(path)
    done = subprocess.run(
        [sys.executable, "-m", "services.lake", "check", "--lake_uri", folder],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    line = json.loads(done.stdout.splitlines()[-1])
    assert (line["problem"], line["first"], line["last"]) == ("broken", 0, 8)
