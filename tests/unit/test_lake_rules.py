"""The lake's rules without any I/O: when a flush is due, what a log accepts, what compaction groups."""

from __future__ import annotations

import pyarrow as pa
import pytest

from services.contract import lake_log
from services.contract.errors import InvalidInput
from services.contract.lake_files import BrokenFile, day_of, projected, split_days
from services.contract.lake_log import LakeFile, Record, State
from services.contract.lake_rows import SCHEMAS, LogRecord
from services.lake.compaction import closed_days, first_rows, groups
from services.lake.flush_rules import Buffer, Limits, due

DAY_US = 86_400_000_000
LIMITS = Limits(records=3, bytes=100, age_s=10, total_bytes=150)


def buffer(records: int, size: int, since_s: float = 0.0) -> Buffer:
    found = Buffer()
    for offset in range(records):
        found.add(LogRecord(0, offset, 0, b"x" * size), since_s)
    return found


@pytest.mark.parametrize(
    ("held", "now_s", "why"),
    [
        (buffer(0, 0), 99, ""),
        (buffer(2, 1), 9.9, ""),
        (buffer(2, 1), 10, "age"),
        (buffer(3, 1), 0, "records"),
        (buffer(1, 99), 0, ""),
        (buffer(1, 100), 0, "bytes"),
    ],
)
def test_a_buffer_is_due_by_records_bytes_or_the_age_of_its_first_record(held, now_s, why):
    assert held.due(LIMITS, now_s) == why


def test_beyond_the_total_the_largest_buffers_go_first():
    held = {name: buffer(1, size) for name, size in (("a", 60), ("b", 90), ("c", 50))}
    assert due(held, LIMITS, 0) == {"b": "total"}
    held["d"] = buffer(1, 99)
    assert due(held, LIMITS, 0) == {"d": "total", "b": "total"}
    assert due({"a": buffer(1, 60), "b": buffer(1, 90)}, LIMITS, 0) == {}


def rows(*times: tuple[int | None, int]) -> pa.Table:
    found = [{"offset": at, "occurred_us": us, "appended_ms": ms} for at, (us, ms) in enumerate(times)]
    return pa.Table.from_pylist(found, schema=SCHEMAS["actions"])


def test_a_row_belongs_to_the_utc_day_of_its_event_or_else_of_its_append():
    day = 20_000 * DAY_US
    parts = dict(split_days(rows((day, 0), (day - 1, 0), (None, day // 1000), (-1, 0), (day + 1, 0))))
    assert {name: part["offset"].to_pylist() for name, part in parts.items()} == {
        "2024-10-04": [0, 2, 4],
        "2024-10-03": [1],
        "1969-12-31": [3],
    }
    assert list(parts) == sorted(parts)
    assert day_of(day - 1) == "2024-10-03"


def file(path: str, size: int = 10, day: str = "2026-01-01") -> LakeFile:
    return LakeFile(path, day, 1, size, 0, 0)


def opened(*more: Record) -> State:
    state = State()
    for record in (Record(lake_log.OPEN, "me", 1), *more):
        assert state.refuses(record) == ""
        state.add(record)
    return state


FLUSHED = Record(lake_log.FLUSH, "me", 2, 10, 19, (file("a"), file("b")), bad=("12: poison",))


def test_a_flush_moves_the_next_offset_past_its_range():
    state = opened(FLUSHED)
    assert (state.next_offset, set(state.files), state.bad_records, state.version) == (20, {"a", "b"}, 1, 2)


@pytest.mark.parametrize(
    ("record", "refused"),
    [
        (Record(lake_log.FLUSH, "me", 3, 20, 29), ""),
        (Record(lake_log.FLUSH, "me", 3, 19, 29), "offsets from 19 on: 20 is next"),
        (Record(lake_log.FLUSH, "zombie", 3, 20, 29), "me has opened the partition since"),
        (Record(lake_log.REPLACE, "anyone", 3, replaces=("a",)), ""),
        (Record(lake_log.REPLACE, "anyone", 3, replaces=("a", "z")), "z does not count any more"),
        (Record(lake_log.OPEN, "heir", 3), ""),
    ],
)
def test_a_record_is_refused_when_the_state_contradicts_it(record, refused):
    assert opened(FLUSHED).refuses(record) == refused


def test_offsets_that_were_skipped_are_a_hole():
    assert opened(FLUSHED, Record(lake_log.FLUSH, "me", 3, 25, 29)).holes == [(20, 24)]


def test_a_record_that_a_zombie_has_written_over_its_successors_does_not_count():
    state = opened(FLUSHED)
    state.add(Record(lake_log.FLUSH, "zombie", 3, 20, 34, (file("z"),)))
    state.add(Record(lake_log.FLUSH, "me", 4, 30, 39, (file("c"),)))
    assert (set(state.files), state.holes, state.next_offset) == ({"a", "b", "c"}, [(20, 29)], 40)


def test_a_replacement_is_remembered_until_its_files_are_deleted():
    state = opened(FLUSHED, Record(lake_log.REPLACE, "c", 7, files=(file("m"),), replaces=("a",), repeats=2))
    assert (set(state.files), state.dropped, state.repeats) == ({"b", "m"}, {"a": 7}, 2)


def test_files_are_grouped_up_to_the_size_and_a_larger_one_stands_alone():
    sizes = [40, 50, 20, 200, 10, 10]
    found = groups([file(str(at), size) for at, size in enumerate(sizes)], 100)
    assert [[one.bytes for one in group] for group in found] == [[40, 50], [20], [200], [10, 10]]


def test_a_day_is_closed_when_a_later_one_has_begun_in_any_partition():
    first, second = opened(FLUSHED), State(files={"x": file("x", day="2026-01-02")})
    assert closed_days({0: first, 1: second}) == ["2026-01-01"]
    assert closed_days({0: first}) == closed_days({}) == []


def test_the_first_row_of_each_key_is_kept():
    keys = pa.table({"a": ["x", "y", "x", "x"], "b": [1, 1, 1, 2]})
    assert first_rows(keys).tolist() == [True, True, False, True]
    assert first_rows(keys.slice(0, 0)).tolist() == []


def test_an_unknown_table_or_column_is_named_with_what_exists():
    with pytest.raises(InvalidInput, match="table=clicks: one of snapshots"):
        projected("clicks", None)
    with pytest.raises(InvalidInput, match=r"columns=dwel: columns of actions: .*dwell_us"):
        projected("actions", ["dwel"])


def test_a_broken_file_says_which_what_and_which_offsets():
    error = BrokenFile(
        "samples", LakeFile("day=2026-01-01/0-5-9-w1.parquet", "2026-01-01", 4, 9, 5, 8), "cut"
    )
    assert str(error) == "samples/day=2026-01-01/0-5-9-w1.parquet=cut: 4 rows of offsets 5 to 8"
