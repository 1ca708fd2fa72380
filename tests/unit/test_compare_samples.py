"""The comparison of schemes sees every leak, loss and difference that is planted, and none that is not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from local.compare import leak, speed
from local.compare.delay import delays
from local.compare.rows import NOWHERE, RowIndex, encoded
from local.compare.sets import CODES, differences, match
from local.compare.truth import Truth, served_features, truth
from services.contract.errors import InvalidInput
from services.contract.features import described
from tests.compare_kit import REQUESTS, SHOWN, SmallRun, samples_table, small_run
from tests.feature_kit import FEATURES

ROWS = REQUESTS * SHOWN
REQUEST, CANDIDATE = described(FEATURES)
COLUMNS = [
    *(("user_features", place, column) for place, column in enumerate(REQUEST)),
    *(("item_features", place, column) for place, column in enumerate(CANDIDATE)),
]


def known(run: SmallRun) -> Truth:
    return truth(*run.tables(), FEATURES)


def planted(row: dict, field: str, place: int, value: float | None = None) -> None:
    """Changes one value of one sample, by its last bit when no value is given."""
    values = np.frombuffer(row[field], np.float32).copy()
    values[place] = np.nextafter(values[place], np.float32(9)) if value is None else value
    row[field] = values.tobytes()


def leaks(run: SmallRun, rows: list[dict]) -> list[leak.ColumnLeak]:
    true, table = known(run), samples_table(rows)
    found = match(true, table)
    mine = table.take(pa.array(found.rows))
    return leak.column_leaks(true.served.take(found.at), encoded(mine, FEATURES))


# -- leaks


def test_samples_as_they_were_scored_do_not_leak_in_whatever_order_they_come():
    run = small_run()
    rows = [dict(row) for row in reversed(run.samples)]
    assert [one.changed for one in leaks(run, rows)] == [0] * len(COLUMNS)
    assert {kind: one.rate for kind, one in leak.by_kind(leaks(run, rows)).items()} == dict.fromkeys(
        leak.KINDS, 0.0
    )


@pytest.mark.parametrize(("field", "place", "column"), COLUMNS, ids=[one[2].name for one in COLUMNS])
def test_one_changed_bit_is_seen_in_its_column_and_kind_and_nowhere_else(field, place, column):
    run = small_run()
    rows = [dict(row) for row in run.samples]
    planted(rows[7], field, place)
    found = leaks(run, rows)
    assert {one.name: one.changed for one in found if one.changed} == {column.name: 1}
    kinds = leak.by_kind(found)
    same_kind = sum(one.kind == column.kind for _, _, one in COLUMNS)
    assert kinds[column.kind].rate == 1 / (ROWS * same_kind)
    assert [kind for kind, one in kinds.items() if one.changed] == [column.kind]


def test_how_far_values_moved_is_a_mean_over_all_samples():
    run = small_run()
    rows = [dict(row) for row in run.samples]
    for row in rows[:30]:
        planted(row, "item_features", 3, np.frombuffer(row["item_features"], np.float32)[3] + 0.5)
    found = next(one for one in leaks(run, rows) if one.name == FEATURES.candidate_columns[3].name)
    assert found.rate == 30 / ROWS
    assert found.mean_abs_difference == pytest.approx(0.5 * 30 / ROWS, rel=1e-4)


def test_zero_and_minus_zero_differ_and_the_same_nan_does_not():
    one = np.array([0.0, np.nan, 1.0], np.float32)
    other = np.array([-0.0, np.nan, 1.0], np.float32)
    assert leak.changed(one, other).tolist() == [True, False, False]


def test_the_oracle_is_judged_by_the_snapshots_too():
    run = small_run()
    planted(run.samples[5], "user_features", 0)
    assert {one.name: one.changed for one in leaks(run, run.samples) if one.changed} == {
        FEATURES.request_columns[0].name: 1
    }


def test_the_first_snapshot_of_a_request_counts():
    run = small_run()
    second = dict(run.snapshots[0]) | {
        "offset": 10_000,
        "item_features": bytes(len(run.snapshots[0]["item_features"])),
    }
    run.snapshots.insert(0, second)
    assert not any(one.changed for one in leaks(run, run.samples))


def test_features_of_another_width_are_refused():
    run = small_run()
    rows = [dict(row) for row in run.samples]
    rows[3]["user_features"] = b"1234"
    with pytest.raises(InvalidInput, match="user_features"):
        leaks(run, rows)


def test_a_sample_of_what_was_never_scored_is_refused():
    run = small_run()
    _, snapshots, _ = run.tables()
    with pytest.raises(InvalidInput, match="1 samples"):
        served_features(snapshots, pa.chunked_array([["r001"]]), np.array([999], np.uint64), FEATURES)


def test_rows_are_found_by_request_and_item():
    index = RowIndex(pa.chunked_array([["a", "a"], ["b"]]), np.array([5, 7, 5], np.uint64))
    wanted = pa.chunked_array([["b", "a", "b", "c", "a"]])
    items = np.array([5, 7, 7, 5, 2**64 - 1], np.uint64)
    assert index.find(wanted, items).tolist() == [2, 1, NOWHERE, NOWHERE, NOWHERE]


# -- sets


def counted(run: SmallRun, rows: list[dict]) -> tuple[float, dict[str, int]]:
    true, table = known(run), samples_table(rows)
    found = match(true, table)
    counts = differences(true, table, found)
    assert list(counts) == list(CODES)
    return found.completeness, {code: count for code, count in counts.items() if count}


def test_the_same_set_is_complete_and_without_difference():
    run = small_run()
    own = {"offset": 1, "row": 3, "appended_ms": 5, "joined_us": 9}
    assert counted(run, [row | own for row in reversed(run.samples)]) == (1.0, {})


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("label_differs", {"label": 0.25}),
        ("time_differs", {"acted_us": 5}),
        ("time_differs", {"scored_us": None}),
        ("features_differ", {"user_features": bytes(4 * FEATURES.user_width)}),
        ("features_differ", {"schema_hash": 1}),
        ("score_differs", {"score": float(np.nextafter(np.float32(0.25), np.float32(1)))}),
        ("score_differs", {"score": None}),
        ("position_differs", {"position": 9}),
        ("model_differs", {"sequence": 5}),
        ("model_differs", {"generation": None, "policy": None}),
        ("user_differs", {"user_id": 77}),
        ("rate_differs", {"sample_rate": 0.5}),
    ],
)
def test_a_sample_that_says_something_else_has_its_code(code, changes):
    run = small_run()
    rows = [dict(row) for row in run.samples]
    rows[11] |= changes
    assert counted(run, rows) == (1.0, {code: 1})


def test_missing_repeated_invented_and_corrected_samples_are_counted():
    run = small_run()
    rows = [dict(row) for row in run.samples]
    assert counted(run, rows[:-4]) == (1 - 4 / ROWS, {"missing": 4})
    assert counted(run, [*rows, rows[0], rows[0]]) == (1 - 1 / ROWS, {"duplicate": 2})
    assert counted(run, [*rows, rows[0] | {"item_id": 1}]) == (1.0, {"extra": 1})
    assert counted(run, [*rows, rows[0] | {"request_id": "who"}]) == (1.0, {"extra": 1})
    assert counted(run, [*rows, rows[0] | {"label_version": 1}]) == (1.0, {"correction": 1})


def test_a_scheme_without_samples_is_not_complete():
    assert counted(small_run(), []) == (0.0, {"missing": ROWS})


# -- speed


def test_speeds_are_clicks_of_the_item_per_minute_of_the_run():
    items = np.array([1, 2, 3, 2], np.uint64)
    clicked = np.array([2, 9, 2, 1], np.uint64)
    assert speed.item_speeds(items, clicked, 30 * 10**6).tolist() == [2.0, 4.0, 0.0, 4.0]
    assert speed.item_speeds(items, clicked[:0], 30 * 10**6).tolist() == [0.0] * 4


def test_a_faster_feature_leaks_more_and_every_row_has_one_class():
    random = np.random.default_rng(3)
    speeds = random.choice([0, 0.3, 0.6, 1.2, 2.4, 4.8, 300], 30_000)
    leaked = random.random(len(speeds)) < 1 - np.exp(-speeds * 20 / 60)
    classes = speed.speed_classes(speeds, leaked, 20 * 10**6)
    assert [one.name for one in classes] == list(speed.CLASSES)
    assert sum(one.rows for one in classes) == (speeds > 0).sum()
    # 1 - exp(-1.2 / 3) = 0.330 is the last below a third.
    assert [(one.low, one.high) for one in classes] == [(0.3, 1.2), (2.4, 2.4), (4.8, 300)]
    rates = [one.leak_rate for one in classes]
    assert rates == sorted(rates)
    assert rates == pytest.approx([one.expected_leak_rate for one in classes], abs=0.02)
    assert rates[1] == pytest.approx(1 - np.exp(-0.8), abs=0.02)
    assert classes[1].updates_per_min == pytest.approx(2.4)


@pytest.mark.parametrize("delay_us", [1, 20 * 10**6, 10**12])
def test_classes_need_three_speeds_and_have_one_each(delay_us):
    assert speed.speed_classes(np.array([0, 1.0, 2.0, 2.0]), np.ones(4, bool), delay_us) == []
    three = speed.speed_classes(np.array([3.0, *[1.0] * 97, 2.0, 2.0]), np.zeros(100, bool), delay_us)
    assert [one.rows for one in three] == [97, 2, 1]
    four = speed.speed_classes(np.array([3.0, 1.0, 2.0, 1e9]), np.ones(4, bool), delay_us)
    assert sum(one.rows for one in four) == 4


# -- delay


def test_delays_are_taken_apart_by_label():
    shown, appended = np.array([0, 0, 1_000]), np.array([1_500, 20_000, 22_000])
    found = delays(shown, appended, np.array([1, 0, 0], np.float32))
    assert found["positives"] == {"p50": 1.5, "p99": 1.5}
    assert found["negatives"] == {"p50": 20.5, "p99": 20.99}
    assert delays(shown[:0], appended[:0], np.zeros(0, np.float32))["all"] == {"p50": None, "p99": None}
