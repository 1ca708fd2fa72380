"""What out/backfill.json says of a run, and what makes the run fail."""

from __future__ import annotations

import copy
import re

import pytest

from local.backfill.run import Run
from local.backfill.verdict import failures, figures, forward_logging

VIEW = "user_lately.1"


def view(rows: int = 12_000, not_default: int = 9_000, **wrong: int) -> dict:
    counts = {"mismatches": 0, "missing": 0, "extra": 0} | wrong
    return {"rows": rows, "rows_not_default": not_default, **counts, "columns": {}}


def served(wrong: int = 0, skewed: list[str] | None = None) -> dict:
    counts = {"rows": 1_000, "mismatches": wrong, "missing": 0, "extra": 0}
    one = {"as_served": counts, "behind_ms": {"p50": 1.0, "p99": 2.0, "p100": 700.0}}
    return {
        "requests": 40, "other_schema": 0, "unreadable": 0, "as_served": counts, "skewed": skewed or [],
        "features": {"a": one, "b": one | {"as_served": counts | {"mismatches": 0}}},
    }  # fmt: skip


RUN = Run(
    steps_s={"add_view": 1.0, "backfill": 4.0, "live": 0.5, "recompute": 6.0},
    began_us=0, live_us=100_000_000, trainable_us=106_000_000, states=2_000, trainable_rows=200_000,
    load_status=0, deaths=[],
)  # fmt: skip
LEARNED = {"auc": {"forward": {"rows": 1_200, "mean": 0.5}}, "log_loss": {}, "held_out": {}}
LOAD = {
    "requests": 4_800, "errors": 0, "requests_per_s": 20.0, "latency_ms": {}, "samples": 48_000,
    "duration_s": 240.0, "duplicates": 0, "impressions": 48_020, "degraded": {},
    "rejected_items": {"unscored": 20},
}  # fmt: skip
SAID = {"states": {"views": {VIEW: view(), "item_activity.1": view()}}, "served": served(), "load": LOAD}


def found(changes: dict | None = None, run: Run = RUN) -> dict:
    said = copy.deepcopy(SAID)
    for name, value in (changes or {}).items():
        part, _, key = name.partition(".")
        target = said[part] if part != "views" else said["states"]["views"]
        target[key if part != "views" else name.removeprefix("views.")] = value
    return figures(run, VIEW, said, LEARNED)


def test_a_run_in_which_all_shows_has_no_failure() -> None:
    good = found()
    assert failures(good, 10_000) == []
    assert (good["rows"], good["mismatches"], good["missing"], good["extra"]) == (12_000, 0, 0, 0)
    assert good["trainable_s"] == 11.5 and list(good["default_views"]) == ["item_activity.1"]


def test_waiting_is_as_long_as_the_rate_of_samples_says() -> None:
    forward = forward_logging(RUN, LEARNED, LOAD)
    # 200,000 rows at 48,000 in 240 s.
    assert forward == {"rows": 1_200, "seconds": 6.0, "samples_per_s": 200.0, "seconds_to_as_many": 1_000.0}
    assert forward_logging(RUN, LEARNED, LOAD | {"samples": 0})["seconds_to_as_many"] is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({f"views.{VIEW}": view(rows=9_999)}, "rows = 9999, below 10000"),
        ({f"views.{VIEW}": view(not_default=5_999)}, "50.0% of the rows are not the default"),
        ({f"views.{VIEW}": view(mismatches=1)}, "user_lately.1: .*'mismatches': 1"),
        ({f"views.{VIEW}": view(missing=2)}, "'missing': 2"),
        ({f"views.{VIEW}": view(extra=3)}, "'extra': 3"),
        ({"views.item_activity.1": view(mismatches=1)}, "item_activity.1"),
        ({"load.errors": 1}, "errors = 1"),
        ({"load.duplicates": 2}, "duplicates = 2"),
        ({"load.impressions": 48_021}, "1 shown items are neither"),
        ({"served.requests": 0}, "no request"),
        ({"served.skewed": ["item_age"]}, "skewed: item_age"),
    ],
)
def test_each_thing_that_does_not_show_is_named(changes: dict, said: str) -> None:
    (problem,) = failures(found(changes), 10_000)
    assert re.search(said, problem)


def test_a_death_and_an_empty_table_fail_the_run() -> None:
    run = Run(**(vars(RUN) | {"deaths": ["feature"], "trainable_rows": 0}))
    assert failures(found(run=run), 10_000) == ["died: feature", "trainable_rows = 0"]


def test_of_what_was_served_only_the_features_that_differ_are_listed() -> None:
    said = found({"served.features": served(2)["features"]})["served_audit"]
    assert said["differ"] == {
        "a": {"mismatches": 2, "missing": 0, "extra": 0, "behind_ms": {"p50": 1.0, "p99": 2.0, "p100": 700.0}}
    }
    assert said["behind_ms_max"] == 700.0
