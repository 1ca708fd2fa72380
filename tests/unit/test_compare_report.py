"""The verdict on a comparison names everything that does not hold; the report shows it all in one file."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from local.compare.page import page
from local.compare.sets import CODES
from local.compare.verdict import failures
from services.contract.features import described
from tests.feature_kit import FEATURES
from tests.report_kit import assert_self_contained


def scheme(leak: float = 0.0, **differences: int) -> dict[str, Any]:
    columns = [column for part in described(FEATURES) for column in part]
    return {
        "samples": 60_000,
        "completeness": 1.0,
        "reasons": {"unscored": 20},
        "differences": dict.fromkeys(CODES, 0) | differences,
        "leak_rate": {"batch": 0.0, "streaming": leak, "instant": 0.0},
        "leak_mean_abs": {"batch": 0.0, "streaming": leak / 10, "instant": 0.0},
        "leak_columns": {one.name: {"kind": one.kind, "rate": leak, "mean_abs": 0.01} for one in columns},
        "state_bytes": 12_345_678,
        "written_bytes": 50_000_000,
        "written_parts": {"feature-snapshots": 49_000_000, "samples<&": 1_000_000},
        "cpu_s": 12.5,
        "cpu_parts": {"joiner": 12.5},
        "delay_s": {"p50": 21.7, "p99": 23.4},
        "delay_positive_s": {"p50": 3.2, "p99": 19.0},
        "delay_negative_s": {"p50": None, "p99": None},
        "auc": 0.71,
        "auc_range": [0.70, 0.72],
        "log_loss": 0.31,
        "log_loss_range": [0.31, 0.31],
        "calibration": 1.02,
        "calibration_range": [1.0, 1.04],
        "trained_samples": 42_000,
    }


def figures() -> dict[str, Any]:
    classes = [
        {
            "name": name,
            "updates_per_min": rate,
            "low": rate,
            "high": rate,
            "rows": 900,
            "leak_rate": rate / 10,
        }
        for name, rate in (("slow", 0.5), ("medium", 1.5), ("fast", 4.0))
    ]
    return {
        "schemes": {
            "lookup": scheme(0.75, features_differ=60_000, score_differs=60_000),
            "offline": scheme(),
            "stream": scheme(),
            "label_first": scheme(),
        },
        "speeds": {
            "scheme": "lookup",
            "column": "item_activity_clicks",
            "classes": classes,
            "static": {"column": "category", "rows": 50_000, "leak_rate": 0.0},
            "without_state": 90,
        },
        "held_out": {"rows": 18_000, "cut_us": 5, "seeds": 3, "trained_share": 0.7},
        "shuffled_labels": scheme() | {"log_loss": 0.4},
        "traffic": {"source": "<simulate>", "impressed_items": 60_020, "clicks": 5_000},
        "reconciliation": {"unexplained": 0, "completeness": 1.0, "streamed_rows": 60_000, "counts": {}},
        "shared_bytes": {"impressions": 1_000},
        "deaths": [],
        "machine": {"cpus": 2},
        "command": "python -m local compare-samples",
        "failed_checks": [],
    }


def test_good_figures_have_no_failure():
    assert failures(figures()) == []


def test_a_quick_run_is_too_short_for_speeds_but_not_for_leaks():
    found = figures()
    found["speeds"]["classes"] = []
    assert failures(found, speeds=False) == []
    found["speeds"]["static"]["leak_rate"] = 0.1
    assert len(failures(found, speeds=False)) == 1


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("schemes", "lookup", "samples"), 49_999, "lookup: 49999 samples"),
        (("schemes", "lookup", "completeness"), 0.999, "lookup: completeness 0.999"),
        (("schemes", "stream", "leak_rate", "streaming"), 1e-6, "stream: streaming columns leak"),
        (("schemes", "offline", "leak_rate", "batch"), 0.5, "offline: batch columns leak"),
        (("schemes", "label_first", "leak_rate", "instant"), 0.5, "label_first: instant columns leak"),
        (("schemes", "label_first", "differences", "score_differs"), 3, "differ: 3 x score_differs"),
        (("schemes", "stream", "differences", "extra"), 1, "differ: 1 x extra"),
        (("speeds", "static", "leak_rate"), 1e-9, "category never moves and leaks"),
        (("speeds", "classes"), [], "fewer than three speeds"),
        (("speeds", "classes", 0, "leak_rate"), 0.0, "does not rise"),
        (("speeds", "classes", 1, "leak_rate"), 0.5, "does not rise"),
        (("speeds", "classes", 2, "leak_rate"), 0.15, "does not rise"),
        (("reconciliation", "unexplained"), 2, "2 unexplained differences"),
        (("shuffled_labels", "log_loss"), 0.31, "stream: log loss 0.3100, not below 0.3100 of shuffled"),
        (("deaths",), ["lake"], "lake died"),
    ],
)
def test_what_does_not_hold_is_named(path, value, said):
    found = copy.deepcopy(figures())
    place: Any = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert [one for one in failures(found) if said in one], failures(found)


def test_the_report_is_one_well_formed_file_that_loads_nothing():
    found = figures() | {"failed_checks": ["stream: <b> leaks"]}
    said = assert_self_contained(page(found))
    for wanted in (
        "60,020 shown items",
        "stream: <b> leaks",
        "75.0%",
        "samples<& 1.0 MB",
        "22 s",
        "<simulate>",
    ):
        assert wanted in said, wanted
    for one in (*FEATURES.request_columns, *FEATURES.candidate_columns):
        assert one.name in said
