"""Alerts name metrics that the code has, with labels that they have, and each has its line in the runbook."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULE = yaml.safe_load((ROOT / "k8s/components/observability/alerts.yaml").read_text())
ALERTS = {one["alert"]: one for group in RULE["spec"]["groups"] for one in group["rules"]}
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
# Prometheus puts these on every series of a pod.
TARGET_LABELS = {"pod", "namespace", "container", "job", "instance"}
KINDS = ("counter", "gauge", "histogram")


def metrics() -> Iterator[tuple[str, set[str]]]:
    """Every metric that is made in the code: its name as Prometheus has it, and its labels."""
    for folder in ("services", "trainer"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            constants = {
                target.id: node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and called(node) in KINDS and text(node.args[:1]):
                    yield made(node, constants)


def called(node: ast.Call) -> str:
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def made(node: ast.Call, constants: dict[str, ast.expr]) -> tuple[str, set[str]]:
    given = {word.arg: word.value for word in node.keywords}
    labels = given.get("labels", node.args[2] if len(node.args) > 2 else None)
    prefix = text([given["prefix"]])[0] if "prefix" in given else "recloop_"
    name = prefix + text(node.args[:1])[0] + ("_total" if called(node) == "counter" else "")
    return name, set(text(list(elements(labels, constants))))


def elements(node: ast.expr | None, constants: dict[str, ast.expr]) -> Iterator[ast.expr]:
    """Of a list or tuple, also where it holds or is the name of another one."""
    if isinstance(node, ast.Name):
        node = constants.get(node.id)
    for one in getattr(node, "elts", []):
        if isinstance(one, ast.Starred):
            yield from elements(one.value, constants)
        else:
            yield one


def text(nodes: Sequence[ast.expr]) -> list[str]:
    return [one.value for one in nodes if isinstance(one, ast.Constant) and isinstance(one.value, str)]


METRICS: dict[str, set[str]] = {}
for metric, its_labels in metrics():
    METRICS.setdefault(metric, set()).update(its_labels)


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """The metrics of an expression, each with the labels that it is selected by."""
    found = re.findall(r"\b((?:recloop|grpc_server)_\w+)(?:\{([^}]*)\})?", expression)
    return [(name, set(re.findall(r"(\w+)\s*(?:=|!)", labels))) for name, labels in found]


def test_the_code_makes_metrics_that_can_be_found():
    assert len(METRICS) > 100


@pytest.mark.parametrize("name", ALERTS)
def test_an_alerts_metrics_and_labels_are_the_codes(name):
    alert = ALERTS[name]
    used = selectors(alert["expr"])
    assert used
    of_all: set[str] = set()
    for metric, labels in used:
        assert metric in METRICS, metric
        assert labels <= METRICS[metric] | TARGET_LABELS, metric
        of_all |= METRICS[metric]
    told = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
    grouped = {
        one.strip() for part in re.findall(r"by \(([^)]*)\)", alert["expr"]) for one in part.split(",")
    }
    assert grouped <= of_all | TARGET_LABELS
    assert told <= (grouped or of_all | TARGET_LABELS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_its_line_in_the_runbook(name):
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert f"| `{name}` | {alert['labels']['severity']} | " in RUNBOOK


def test_the_runbook_has_no_line_of_an_alert_that_is_gone():
    assert set(re.findall(r"^\| `(\w+)` \|", RUNBOOK, re.M)) == set(ALERTS)
