"""docs/metrics.md is what the code declares."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from docs import metrics as metrics_doc

ROOT = Path(__file__).resolve().parents[2]


def test_the_document_is_current():
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics_doc.document(metrics_doc.declared()), (
        "run: python docs/metrics.py"
    )


def test_every_metric_says_what_it_is_and_none_is_declared_in_two_ways():
    found = metrics_doc.declared()
    assert len(found) > 150
    assert [metric.name for metric in found if not metric.help] == []
    ways: dict[str, set] = {}
    for metric in found:
        ways.setdefault(metric.name, set()).add((metric.kind, metric.labels))
    assert {name: ways for name, ways in ways.items() if len(ways) > 1} == {}


def test_what_a_running_process_tells_is_in_it():
    """Declarations are found by reading: one that is made in another way would be missed."""
    from services.runtime import telemetry

    for name in ("feature", "gateway", "joiner", "lake", "page", "recall"):
        importlib.import_module(f"services.{name}.metrics")
    importlib.import_module("services.ranking.metrics").Metrics()
    documented = {metric.name.removesuffix("_total") for metric in metrics_doc.declared()}
    assert len(telemetry._METRICS) > 60
    assert [name for name in telemetry._METRICS if name.removesuffix("_total") not in documented] == []


def test_a_declaration_that_cannot_be_read_is_named(tmp_path):
    folder = tmp_path / "services" / "x"
    folder.mkdir(parents=True)
    (tmp_path / "trainer").mkdir()
    good = (
        "from services.runtime.telemetry import counter, gauge\n"
        "from elsewhere import histogram\n"
        'P = ["a"]\n'
        'A = counter("one", "First.", [*P, "b"], prefix="")\n'
        "B = histogram(A)\n"
    )
    (folder / "metrics.py").write_text(good)
    (found,) = metrics_doc.declared(tmp_path)
    assert (found.owner, found.name, found.labels) == ("services/x", "one_total", ("a", "b"))
    assert found.help == "First"
    (folder / "metrics.py").write_text(good + 'C = gauge(made(), "x")\n')
    with pytest.raises(ValueError, match=r"metrics.py:6: a gauge .* made\(\)"):
        metrics_doc.declared(tmp_path)
