"""Every difference between a stream's samples and the batch join has its reason code."""

from __future__ import annotations

import json
import struct
from typing import Any

import pyarrow as pa
import pytest
from oracles.join_lake import lake_of, lake_samples
from oracles.join_logs import Logs, feed_all
from oracles.join_traffic import closing, logs_by_partition, traffic

from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.lake_rows import SCHEMAS
from services.lake.join import REASONS_SCHEMA, OfflineResult, offline_join
from services.lake.reconcile import CODES, Reconciliation, between, reconcile

CONFIG = JoinConfig(window_us=2_000_000, bound_us=300_000)
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def logs() -> Logs:
    return logs_by_partition([*traffic(11, 400), *closing()])[0]


@pytest.fixture(scope="module")
def offline(logs: Logs) -> OfflineResult:
    return offline_join(lake_of([logs]), CONFIG)


@pytest.fixture(scope="module")
def streamed(logs: Logs) -> Rows:
    return lake_samples(feed_all(JoinTask(CONFIG), logs, [])).to_pylist()


def compared(streamed: Rows, offline: OfflineResult, late: Rows | None = None) -> Reconciliation:
    reasons = None if late is None else pa.Table.from_pylist(late, REASONS_SCHEMA)
    return reconcile(pa.Table.from_pylist(streamed, SCHEMAS["samples"]), offline, reasons)


def occurring(found: Reconciliation) -> dict[str, int]:
    assert list(found.counts) == list(CODES)
    return {code: count for code, count in found.counts.items() if count}


def test_a_stream_that_says_what_the_batch_says_is_complete(streamed: Rows, offline: OfflineResult) -> None:
    found = compared(streamed, offline, offline.reasons.to_pylist())
    assert (occurring(found), found.unexplained, found.completeness()) == ({}, 0, 1.0)
    assert found.streamed_rows == found.offline_rows > 300
    impressed = [r["items"] for r in offline.reasons.to_pylist() if r["source"] == 1]
    assert found.decided == {0: found.offline_rows + sum(impressed)}


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("label_differs", {"label": 0.25}),
        ("time_differs", {"acted_us": 5}),
        ("time_differs", {"occurred_us": 5, "scored_us": None}),
        ("features_differ", {"item_features": b"12345678"}),
        ("features_differ", {"user_features": b""}),
        ("features_differ", {"schema_hash": 78}),
        ("score_differs", {"score": 0.123}),
        ("position_differs", {"position": 99}),
        ("model_differs", {"generation": None, "sequence": 6}),
        ("model_differs", {"arm": "frozen"}),
        ("user_differs", {"user_id": 2**64 - 1}),
        ("rate_differs", {"sample_rate": 0.5}),
        ("version_gap", {"label_version": 1}),
    ],
)
def test_a_changed_column_has_its_code(
    streamed: Rows, offline: OfflineResult, code: str, changes: dict[str, Any]
) -> None:
    found = compared([streamed[0] | changes, *streamed[1:]], offline)
    assert (occurring(found), found.unexplained) == ({code: 1}, 1)
    (difference,) = found.differences.to_pylist()
    assert difference["item_id"] == streamed[0]["item_id"]
    if code != "version_gap":
        assert all(name in difference["detail"] for name in changes)
    assert found.completeness() == 1.0


def test_a_lost_sample_is_missing_and_counts_against_completeness(
    streamed: Rows, offline: OfflineResult
) -> None:
    found = compared(streamed[3:], offline)
    assert (occurring(found), found.unexplained) == ({"missing_in_stream": 3}, 3)
    assert found.completeness() == found.completeness(0) == 1 - 3 / found.decided[0]


def test_a_sample_of_another_item_time_or_partition_is_extra_and_the_right_one_missing(
    streamed: Rows, offline: OfflineResult
) -> None:
    changes: list[dict[str, Any]] = [{"item_id": 2**64 - 1}, {"impressed_us": None}, {"partition": 7}]
    wrong = [row | change for row, change in zip(streamed, changes, strict=False)]
    found = compared([*wrong, *streamed[3:]], offline)
    assert occurring(found) == {"missing_in_stream": 3, "extra_in_stream": 3}


def test_a_sample_that_was_written_twice_is_a_duplicate(streamed: Rows, offline: OfflineResult) -> None:
    found = compared([*streamed, streamed[0] | {"offset": 10**6}], offline)
    assert (occurring(found), found.unexplained) == ({"duplicate_in_stream": 1}, 1)


def test_of_numbered_corrections_the_newest_label_counts_and_the_features_of_all(
    streamed: Rows, offline: OfflineResult
) -> None:
    at = next(k for k, row in enumerate(streamed) if row["label"] == 1.0)
    positive, rest = streamed[at], streamed[:at] + streamed[at + 1 :]
    first = positive | {"label": 0.0, "acted_us": None}
    second = positive | {"label_version": 1}
    assert occurring(compared([second, *rest, first], offline)) == {}
    swapped = [first | {"label_version": 1}, positive]
    assert occurring(compared([*rest, *swapped], offline)) == {"label_differs": 1, "time_differs": 1}
    recomputed = first | {"item_features": b"12345678"}
    assert occurring(compared([*rest, recomputed, second], offline)) == {"features_differ": 1}


def test_items_that_the_stream_says_it_gave_up_are_explained(streamed: Rows, offline: OfflineResult) -> None:
    request = streamed[0]["request_id"]
    of_request = [row for row in streamed if row["request_id"] == request]
    rest = [row for row in streamed if row["request_id"] != request]
    lost, left = of_request[0]["item_id"], of_request[1:]
    shown = {"reason": "evicted", "source": 1, "partition": 0, "offset": 3, "request_id": request}
    said = offline.reasons.to_pylist()
    whole = compared(rest, offline, [*said, shown | {"items": len(of_request), "item_ids": b""}])
    assert occurring(whole) == {"evicted": len(of_request) + 1}
    assert (whole.unexplained, whole.completeness()) == (0, 1.0)
    named = shown | {"reason": "sampled_out", "items": 1, "item_ids": struct.pack("<Q", lost)}
    assert occurring(compared([*rest, *left], offline, [*said, named])) == {"sampled_out": 2}
    another = named | {"item_ids": struct.pack("<Q", lost + 1)}
    assert occurring(compared([*rest, *left], offline, [*said, another])) == {
        "missing_in_stream": 1,
        "sampled_out": 1,
    }


def test_reason_rows_of_one_side_only_are_named(streamed: Rows, offline: OfflineResult) -> None:
    said = offline.reasons.to_pylist()
    at = next(k for k, row in enumerate(said) if row["items"])
    lost = said[:at] + said[at + 1 :]
    found = compared(streamed, offline, lost)
    assert (occurring(found), found.unexplained) == ({"reason_missing_in_stream": 1}, 1)
    assert found.completeness() == 1 - said[at]["items"] / found.decided[0]
    other = (
        said[at] | {"reason": "late"} if said[at]["reason"] != "late" else said[at] | {"reason": "unscored"}
    )
    found = compared(streamed, offline, [*lost, other])
    assert occurring(found) == {"reason_missing_in_stream": 1, "reason_extra_in_stream": 1}
    assert occurring(compared(streamed, offline, [*said, said[0]])) == {"duplicate_in_stream": 1}
    given_up = said[at] | {"reason": "evicted"}
    found = compared(streamed, offline, [*lost, given_up])
    assert (occurring(found), found.unexplained, found.completeness()) == ({"evicted": 1}, 0, 1.0)


def test_a_range_of_time_leaves_the_rest_out_on_both_sides(streamed: Rows, offline: OfflineResult) -> None:
    times = sorted(row["impressed_us"] for row in streamed)
    since, until = times[len(times) // 3], times[2 * len(times) // 3]
    table = pa.Table.from_pylist(streamed, SCHEMAS["samples"])
    part, batch = between(table, offline, since, until)
    assert 0 < part.num_rows == batch.samples.num_rows < table.num_rows
    assert {row["impressed_us"] for row in part.to_pylist()} == {t for t in times if since <= t < until}
    assert reconcile(part, batch).unexplained == 0
    assert 0 < batch.reasons.num_rows < offline.reasons.num_rows
    assert between(table, offline, None, None)[1].reasons.equals(offline.reasons)


def test_the_report_names_codes_counts_and_a_few_examples(streamed: Rows, offline: OfflineResult) -> None:
    found = compared([streamed[7] | {"label": 0.25}, *streamed[8:]], offline)
    text = found.text()
    assert "missing_in_stream                   7" in text
    assert "label 0.25 instead of" in text
    assert text.count("item_id=") == 6, "five examples of seven, and one"
    said = json.loads(json.dumps(found.as_dict()))
    assert said["counts"]["missing_in_stream"] == 7
    assert said["unexplained"] == 8
    assert said["completeness"] == said["partitions"]["0"]["completeness"] < 1


def test_nothing_at_all_is_complete() -> None:
    nothing = offline_join(lake_of([]), CONFIG)
    found = compared([], nothing, [])
    assert (found.unexplained, found.completeness(), found.decided) == (0, 1.0, {})


def test_a_correcting_stream_ends_where_the_final_one_does(logs: Logs, offline: OfflineResult) -> None:
    config = JoinConfig(CONFIG.window_us, CONFIG.bound_us, emission="correcting", early_negative_us=200_000)
    corrected = lake_samples(feed_all(JoinTask(config), logs, [])).to_pylist()
    assert sum(row["label_version"] > 0 for row in corrected) > 10
    found = compared(corrected, offline)
    assert occurring(found) == {}
    assert found.streamed_rows > found.offline_rows
