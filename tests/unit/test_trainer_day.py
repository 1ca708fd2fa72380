"""A day's cut of the samples log: what is trained by whom."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.errors import Conflict, InvalidInput
from services.contract.lake_files import DAY_US
from services.contract.lake_schema import SCHEMAS
from trainer.day import below, cut_of, day_start_us, file_days, newest_labels, select, without

END_US = day_start_us("2026-03-02")
MINUTE_US = 60_000_000
NEWEST = {"judged_from_us": END_US - 100 * MINUTE_US, "end_us": END_US}


def row(partition: int, offset: int, minute: int, label: float = 0.0, **more: object) -> dict[str, object]:
    """A sample of an impression ``minute`` minutes after the day's end; a click has a time of action."""
    impressed_us = END_US + minute * MINUTE_US
    return {
        "partition": partition,
        "offset": offset,
        "row": 0,
        "request_id": f"r{partition}-{offset}",
        "item_id": 1,
        "position": 0,
        "occurred_us": impressed_us,
        "impressed_us": impressed_us,
        "acted_us": impressed_us + 1 if label else None,
        "label": label,
        "label_version": 0,
    } | more


def samples(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMAS["samples"])


def test_a_day_is_its_utc_date() -> None:
    assert day_start_us("1970-01-02") == DAY_US
    # A simulated one may begin at any moment.
    assert day_start_us("1970-01-02T00:01:30") == DAY_US + 90_000_000
    for wrong in ("1970-13-01", "yesterday"):
        with pytest.raises(InvalidInput, match="day"):
            day_start_us(wrong)


@pytest.mark.parametrize(
    ("begin", "end", "days"),
    [
        ("2026-03-01", "2026-03-02", ["2026-02-28", "2026-03-01", "2026-03-02"]),
        ("2026-02-27", "2026-03-02", ["2026-02-26", "2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02"]),
        # What is said early of the first minute past midnight stands below this cut, in a file behind it.
        ("2026-03-01T23:57:00", "2026-03-01T23:59:00", ["2026-02-28", "2026-03-01", "2026-03-02"]),
        # Asked before midnight, seen in a day of two minutes that begins a minute later.
        ("2026-03-01T00:03:00", "2026-03-01T00:05:00", ["2026-02-28", "2026-03-01", "2026-03-02"]),
    ],
)
def test_a_days_rows_may_lie_in_the_files_of_its_neighbours(begin: str, end: str, days: list[str]) -> None:
    assert file_days(day_start_us(begin), day_start_us(end)) == days


def test_the_cut_stands_behind_the_last_row_of_the_day() -> None:
    # 11: a click of the next morning, said at once; it stands below the cut and is the day's.
    table = samples(row(0, 10, -5), row(0, 11, 3, 1.0), row(0, 12, -1), row(0, 13, 4), row(2, 7, 1))
    cut = cut_of(table, END_US)
    assert cut == {0: 13, 2: 0}
    assert below(table, cut)["offset"].to_pylist() == [10, 11, 12]


def test_a_day_is_over_when_a_later_window_has_closed_everywhere() -> None:
    # A click says nothing about the watermark, neither does a correction.
    correction = row(1, 9, 5, label_version=1)
    table = samples(row(0, 1, -1), row(0, 2, 1), row(1, 7, -1), row(1, 8, 2, 1.0), correction)
    with pytest.raises(Conflict, match=r"partitions 1 of samples"):
        cut_of(table, END_US)
    assert cut_of(pa.concat_tables([table, samples(row(1, 10, 1))]), END_US) == {0: 2, 1: 8}


def test_behind_an_earlier_cut_the_rows_from_there_on_say_all() -> None:
    table = samples(row(0, 1, -9), row(0, 2, -5), row(0, 3, 2), row(1, 7, -9), row(1, 8, 1))
    start = {0: 2, 1: 8}
    assert cut_of(below(table, {0: 9, 1: 9}, start), END_US, start) == cut_of(table, END_US) == {0: 3, 1: 8}
    # Nothing new has come there: the day may still be going on, and nothing is learned anew.
    with pytest.raises(Conflict, match="partitions 1 of samples"):
        cut_of(samples(row(0, 3, 2)), END_US, start)


def test_an_impression_at_midnight_is_the_next_days() -> None:
    table = samples(row(0, 1, -1), row(0, 2, 0))
    assert cut_of(table, END_US) == {0: 2}
    judge = [row(0, offset, -minutes, float(offset % 2)) for offset, minutes in enumerate((500, 400, 100, 9))]
    found = select(samples(*judge, row(0, 4, 0, 1.0)), from_us=0, **NEWEST)
    assert found.judged["offset"].to_pylist() == [2, 3]
    assert found.early["offset"].to_pylist() == [4]


def test_a_rollbacks_ranges_are_left_out_of_their_partition_alone() -> None:
    table = samples(*(row(partition, offset, -1) for partition in (0, 1) for offset in range(5)))
    rows = without(table, [(1, 1, 3), (0, 4, 9)])
    assert list(zip(rows["partition"].to_pylist(), rows["offset"].to_pylist(), strict=True)) == [
        *((0, offset) for offset in range(4)),
        (1, 0),
        (1, 3),
        (1, 4),
    ]
    assert without(table, ()).equals(table)


def test_rows_behind_a_parents_offsets_are_left_to_it() -> None:
    table = samples(*(row(partition, offset, -1) for partition in (0, 1, 3) for offset in range(4)))
    rows = below(table, {0: 3, 1: 4}, {0: 2, 5: 9})
    assert list(zip(rows["partition"].to_pylist(), rows["offset"].to_pylist(), strict=True)) == [
        (0, 2),
        (1, 0),
        (1, 1),
        (1, 2),
        (1, 3),
    ]


@given(st.permutations(range(6)), st.integers(0, 5))
def test_the_order_is_that_of_the_events_and_each_sample_has_its_newest_label(
    order: list[int], corrected: int
) -> None:
    rows = [row(0, offset, -10 + place, 0.0) for place, offset in enumerate(order)]
    late = rows[corrected] | {"offset": 99, "label": 1.0, "label_version": 1}
    found = newest_labels(samples(late, *sorted(rows, key=lambda one: one["offset"])))  # type: ignore[arg-type,return-value]
    assert found["impressed_us"].to_pylist() == sorted(one["impressed_us"] for one in rows)  # type: ignore[type-var]
    assert found["label"].to_pylist() == [float(place == corrected) for place in range(6)]


def test_the_newest_hours_judge_and_older_days_are_left_out() -> None:
    day = [
        row(0, offset, -minutes, float(offset % 2)) for offset, minutes in enumerate((3000, 500, 400, 90, 60))
    ]
    # A click of the next morning is learned, but says nothing about what is not clicked there.
    day.append(row(0, 5, 1, 1.0))
    found = select(samples(*day), from_us=END_US - DAY_US, **NEWEST)
    assert found.trained["offset"].to_pylist() == [1, 2]
    assert found.judged["offset"].to_pylist() == [3, 4]
    assert found.early["offset"].to_pylist() == [5]


def test_a_day_without_samples_or_of_one_label_is_refused() -> None:
    for table in (samples(), samples(row(0, 0, -500), row(0, 1, -10))):
        with pytest.raises(InvalidInput, match="rows to train"):
            select(table, from_us=0, **NEWEST)
