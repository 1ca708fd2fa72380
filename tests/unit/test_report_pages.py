"""Pages are one well-formed file that loads nothing, with the figures that they are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from local.errors import LocalError
from local.evidence import Evidence
from local.report import command
from local.report.decisions import of_events
from local.report.freshness_page import freshness_page, places
from local.report.numbers import count, decimal, interval, percent, seconds, size
from local.report.releases_page import releases_page
from local.report.run_page import run_page
from local.report.setup import commit, setup, started_with
from rec.model.v1.model_pb2 import ReleaseEvent
from services.contract.times import from_us
from services.runtime.settings import Group, differing
from tests.report_kit import (
    START_US,
    Drawn,
    S,
    assert_self_contained,
    clicked,
    decision,
    evidence,
    request,
    sample,
    shown,
)

SETUP = setup(
    "python -m local demo --rate 30",
    {"world": 7},
    {"joiner": {"bound_ms": "<5>", "<name>": "1"}, "release": {}, "<process>": {"a": "2"}},
)
FIGURES: dict[str, Any] = {
    "requests": 7_781,
    "errors": 0,
    "ctr": 0.129456,
    "freshness_s": {"p50": 1.32, "p99": 4.8},
    "freshness_stage_s": {
        name: {"p50": 0.0842, "p99": None} for name in ("collect", "join", "train", "publish", "apply")
    },
    "freshness_clicks": 7_864,
    "clicks_unserved": 317,
    "ctr_true_last_30s": {"online": 0.18, "frozen": 0.12},
    "rejected_items": {"unscored<": 1_180},
    "degraded": {"ranking:deadline": 926, "<ranking>": 1},
    "peak_memory_mb": {"trainer": 786.4},
    "failed_checks": ["samples = 1, not the <2> items shown"],
}
RUN = evidence(
    requests=[request(number, float(number)) for number in range(30)],
    events=[*(shown(number) for number in range(30)), clicked(3, 1)],
    samples=[sample(number, item, float(item == 1), 0.1 * item) for number in range(30) for item in (1, 2)],
    decisions=[decision(12.0, "rolled_back", reason="bots & <b>")],
)


def freshness_figures(std: float | None = 0.001) -> dict[str, Any]:
    rows = [
        {
            "interval_s": interval_s,
            "auc": {"mean": mean, "std": std, "seeds": 3},
            "auc_all": mean if interval_s else None,
            "log_loss": 0.6,
            "delta_bytes": 1e8 / (interval_s or 1e8),
            "cpu_s": 1.5,
        }
        for interval_s, mean in ((600, 0.75), (3_600, 0.745), (86_400, 0.73), (None, 0.70))
    ]
    one = {"seed": 1, "barrier_s": 600, "events": 99_999, "samples": 99_999, "barriers": 10, "seconds": 61.0}
    passes = [one | {"barrier_wait_ms": {"p50": 40.0, "p99": None}}]
    return {"dataset": "<log>", "rows": rows, "passes": passes, "failed_checks": [], "setup": SETUP}


def test_the_page_of_a_run_has_its_figures_checks_and_setup() -> None:
    said = assert_self_contained(run_page("The <loop>", FIGURES, RUN, SETUP))
    for wanted in (
        "recloop: The <loop>",
        "degraded: <ranking>",
        "<process>",
        "<name>",
        "7,781 requests, 0 errors",
        "12.9%",
        "50% above",
        "samples = 1, not the <2> items shown",
        "no sample: unscored<",
        "degraded: ranking:deadline",
        "84 ms",
        "786 MB",
        "rolled back",
        "reason bots & <b>",
        "world 7",
        "bound_ms",
        "<5>",
        "python -m local demo --rate 30",
    ):
        assert wanted in said, wanted


def test_a_run_without_figures_or_evidence_has_a_page_all_the_same() -> None:
    said = assert_self_contained(run_page("The loop", {}, evidence(), SETUP))
    assert "Every check holds." in said and "Nothing to show" in said
    assert "Nothing was decided meanwhile." in said


def test_the_page_of_freshness_has_its_rows_and_error_bars() -> None:
    figures = freshness_figures()
    page = freshness_page(figures)
    said = assert_self_contained(page)
    for wanted in (
        "<log>",
        "99,999 events",
        "0.7500",
        "0.0500 less",
        "10 min",
        "never",
        "1.50 s",
        "Every check holds.",
    ):
        assert wanted in said, wanted
    drawn = Drawn(page[page.index("AUC by interval") :])
    assert [y for _, y in drawn.dots()] == pytest.approx([0.75, 0.745, 0.73, 0.70], abs=3e-4)
    assert [high - low for low, high in drawn.bars()] == pytest.approx([0.002] * 4, abs=6e-4)


def test_one_seed_has_no_error_bars_and_failures_are_said() -> None:
    figures = freshness_figures(std=None) | {"failed_checks": ["1 d is <better>"]}
    page = freshness_page(figures)
    assert "1 d is <better>" in assert_self_contained(page)
    assert Drawn(page[page.index("AUC by interval") :]).bars() == []


def world_figures() -> dict[str, Any]:
    def window(window_s: int | None, mean: float) -> dict[str, Any]:
        area = {"mean": mean, "std": 0.002, "seeds": 3}
        return {"window_s": window_s, "auc": area, "log_loss": 0.2, "trained_rows": 12_345.0}

    def world(shift: float) -> dict[str, Any]:
        found = freshness_figures()
        for row in found["rows"]:
            row["auc"]["mean"] -= shift
        return {
            "rows": found["rows"],
            "passes": found["passes"],
            "windows": [window(600, 0.612 - shift), window(1_200, 0.634 - shift), window(None, 0.64 - shift)],
            "served": {"auc": 0.655 - shift, "log_loss": 0.19},
            "every_s": 300,
            "models": 8,
            "judged_rows": 4_321,
        }

    setup_of = setup("python -m local freshness", {"models": "1, 2"}, {})
    return {
        "drift": world(0.1),
        "still": world(0.0),
        "setup": setup_of,
        "failed_checks": ["world, <x>"],
    }


def test_the_world_is_on_the_page_both_ways_with_its_windows() -> None:
    page = freshness_page(freshness_figures() | {"world": world_figures()})
    said = assert_self_contained(page)
    for wanted in ("With and without drift", "Every 5 min", "4,321 rows by 8 models", "last 10 min",
                   "last 20 min", "all so far", "12,345", "0.5120", "0.6550", "world, <x>"):  # fmt: skip
        assert wanted in said, wanted
    drawn = Drawn(page[page.index("With and without drift") :])
    heights = [y for _, y in drawn.dots()]
    assert heights == pytest.approx([0.65, 0.645, 0.63, 0.60, 0.75, 0.745, 0.73, 0.70], abs=1e-3)


def test_the_world_alone_has_a_page() -> None:
    none = {"dataset": None, "rows": [], "passes": [], "failed_checks": []}
    said = assert_self_contained(freshness_page(none | {"world": world_figures()}))
    assert "In the simulated world only." in said and "models 1, 2" in said


def test_never_stands_behind_the_longest_interval() -> None:
    where = places(freshness_figures()["rows"])
    assert where == sorted(where) and where[-1] > 86_400


def test_the_page_of_decisions_has_them_all_but_the_routine() -> None:
    names = ("generation_registered", "base_registered", "gate_failed", "promoted")
    values = [
        ReleaseEvent(
            arm="generation/2/life",
            decided_at=from_us(START_US + place * 60 * S),
            decision=name,
            evidence_json=json.dumps({"difference": "0.02", "confidence_sequence": ["0.01", "0.03"]}),
        ).SerializeToString()
        for place, name in enumerate(names)
    ]
    said = assert_self_contained(releases_page(of_events(values), SETUP))
    assert "3 decisions, 1 of them against a model" in said and "base registered" not in said
    assert "180.0 s" in said and "+0.0200" in said
    assert "0 decisions" in assert_self_contained(releases_page(of_events([]), SETUP))


# -- the command -------------------------------------------------------------------------------------------


def written(out: Path, found: Evidence) -> None:
    folder = out / "evidence"
    folder.mkdir(parents=True)
    for name, table in vars(found).items():
        pq.write_table(pa.table(table or {"none": pa.array([], pa.int64())}), folder / f"{name}.parquet")
    (out / "demo.json").write_text(json.dumps(FIGURES | {"seed": 7, "settings": {"rate": "30.0"}}))


def test_a_demo_is_reported_with_what_its_processes_were_started_with(tmp_path: Path, capsys) -> None:
    from local.paths import RunPaths

    written(tmp_path, RUN)
    paths = RunPaths(tmp_path / "run")
    paths.logs.mkdir(parents=True)
    lines = [{"event": "starting", "settings": {"window_ms": place}} for place in (1, 2)]
    text = "\n".join(["not JSON", *map(json.dumps, lines), '["starting"]', '{"event": "starting"}'])
    (paths.logs / "joiner.log").write_text(text)
    assert started_with(paths.logs) == {"joiner": {"window_ms": "2"}}
    page = command.demo(tmp_path, paths)
    said = assert_self_contained(page.read_text())
    assert "window_ms 2" in said and "rate 30.0" in said and commit(Path.cwd())[:12] in said
    # Again, when the logs are gone: the same page.
    (paths.logs / "joiner.log").unlink()
    before = page.read_text()
    assert command.main(["demo", "--out", str(tmp_path)]) == 0
    assert page.read_text() == before and "demo.html" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["demo", "freshness"])
def test_without_a_run_the_command_says_what_to_do_first(tmp_path: Path, what: str) -> None:
    with pytest.raises(LocalError, match=f"make {what}"):
        command.main([what, "--out", str(tmp_path)])


def test_a_folder_that_is_no_checkout_has_no_commit(tmp_path: Path) -> None:
    assert "not a git checkout" in commit(tmp_path)


# -- numbers and settings ----------------------------------------------------------------------------------


def test_numbers_are_said_with_units_and_nothing_is_a_dash() -> None:
    assert [said(None) for said in (count, percent, seconds, size)] == ["–"] * 4
    assert [said(float("nan")) for said in (count, percent, seconds, size)] == ["–"] * 4
    assert decimal(float("nan"), 2) == "–" and decimal(1234.5, 1) == "1,234.5"
    assert [seconds(one) for one in (0.0842, 0.5, 75.4)] == ["84 ms", "0.50 s", "75 s"]
    assert [size(one) for one in (12, 1_500, 2.5e6)] == ["12 B", "1.5 kB", "2.5 MB"]
    assert [percent(one) for one in (0, 0.123, 0.00012, 1)] == ["0%", "12.3%", "0.01%", "100%"]
    assert interval(None) == "never" and interval(90) == "90 s"


class Inner(Group):
    linger_ms: int = 5
    """How long."""
    url: str = "redis://a"
    """Where."""


class Outer(Group):
    rate: float = 1.0
    """How often."""
    inner: Inner = Inner(linger_ms=7)
    """A group with a default of its own."""
    other: Inner = Inner()
    """Another."""


def test_settings_that_are_not_the_defaults_are_found_and_places_left_out() -> None:
    assert differing(Outer()) == {}
    changed = Outer(rate=2.0, inner=Inner(linger_ms=5, url="redis://:secret@b"), other=Inner(linger_ms=7))
    assert differing(changed) == {"rate": "2.0", "inner.linger_ms": "5", "other.linger_ms": "7"}
