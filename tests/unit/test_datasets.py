"""Data sets are read whole or refused by row, column, value and what is allowed."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadgen import datasets
from services.contract.errors import InvalidInput

ML_100K = Path(os.environ.get("RECLOOP_ML100K", Path(__file__).parents[3] / "shared/data/ml-100k"))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_csv_is_sorted_by_time_then_user_then_item(tmp_path):
    path = write(
        tmp_path / "log.csv", "timestamp,user_id,item_id,label\n5,b,y,0\n5,a,z,1\n5,a,y,0\n1,c,c,1\n"
    )
    events = datasets.load(path)
    assert list(zip(events.user_keys, events.item_keys, strict=True)) == [
        ("c", "c"),
        ("a", "y"),
        ("a", "z"),
        ("b", "y"),
    ]
    assert events.timestamps_us.tolist() == [1_000_000, 5_000_000, 5_000_000, 5_000_000]


def test_parquet_and_csv_of_the_same_log_are_the_same_events(tmp_path):
    csv = write(tmp_path / "log.csv", "timestamp,user_id,item_id,label,position\n2,7,8,1,3\n1,9,8,0,0\n")
    table = pa.table(
        {"timestamp": [2, 1], "user_id": [7, 9], "item_id": [8, 8], "label": [1, 0], "position": [3, 0]}
    )
    pq.write_table(table, tmp_path / "log.parquet")
    one, other = datasets.load(csv), datasets.load(tmp_path / "log.parquet")
    assert one.user_keys == other.user_keys == ["9", "7"]
    assert np.array_equal(one.positions, other.positions)
    assert np.array_equal(one.labels, other.labels)


def test_feature_columns_that_the_loop_does_not_have_are_named(tmp_path):
    path = write(tmp_path / "log.csv", "timestamp,user_id,item_id,label,age\n1,a,b,0,33\n")
    assert datasets.load(path).ignored_columns == ("age",)


@pytest.mark.parametrize(
    "row, where",
    [
        ("x,a,b,1", "row 3 timestamp=x"),
        ("-1,a,b,1", "row 3 timestamp=-1"),
        ("1,,b,1", "row 3 user_id="),
        ("1,a,b,2", "row 3 label=2"),
        ("1,a,b,0.5", "row 3 label=0.5"),
        ("nan,a,b,1", "row 3 timestamp=nan"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, where):
    path = write(tmp_path / "log.csv", f"timestamp,user_id,item_id,label\n1,a,b,0\n{row}\n")
    with pytest.raises(InvalidInput, match=where):
        datasets.load(path)


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(InvalidInput, match="no column label"):
        datasets.load(write(tmp_path / "log.csv", "timestamp,user_id,item_id\n1,a,b\n"))


def test_a_short_csv_row_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="rows all have the header"):
        datasets.load(write(tmp_path / "log.csv", "timestamp,user_id,item_id,label\n1,a\n"))


@pytest.mark.parametrize(
    "line, what", [("1\t2\t6\t9", "rating=6"), ("1\t2\t3", "row=1"), ("1\t2\t3\tx", "timestamp=x")]
)
def test_a_bad_movielens_row_is_named(tmp_path, line, what):
    write(tmp_path / "u.data", f"1\t2\t3\t9\n{line}\n")
    with pytest.raises(InvalidInput, match=f"row 2 .*{what}|row 2 {what}"):
        datasets.load(tmp_path)


def test_a_path_that_is_nothing_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="existing file"):
        datasets.load(tmp_path / "none.csv")
    with pytest.raises(InvalidInput, match=r"u\.data"):
        datasets.load(tmp_path)


@pytest.mark.skipif(not ML_100K.is_dir(), reason=f"MovieLens 100K is not at {ML_100K} (set RECLOOP_ML100K)")
def test_movielens_is_whole_and_in_time_order():
    events = datasets.load(ML_100K)
    assert len(events) == 100_000
    assert np.all(np.diff(events.timestamps_us) >= 0)
    assert events.labels.mean() == pytest.approx(0.55375)
    items = datasets.catalogue(ML_100K, events)
    assert len(items) == 1682
    assert {item.category for item in items} <= set(range(1, 20))
