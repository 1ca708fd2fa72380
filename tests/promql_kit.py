"""Which metrics the code makes, and which ones PromQL asks for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from prometheus_client import PROCESS_COLLECTOR

ROOT = Path(__file__).parents[1]
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
                    yield from made(node, constants)


def called(node: ast.Call) -> str:
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def made(node: ast.Call, constants: dict[str, ast.expr]) -> Iterator[tuple[str, set[str]]]:
    given = {word.arg: word.value for word in node.keywords}
    labels = given.get("labels", node.args[2] if len(node.args) > 2 else None)
    prefix = text([given["prefix"]])[0] if "prefix" in given else "recloop_"
    kind, base = called(node), prefix + text(node.args[:1])[0]
    known = set(text(list(elements(labels, constants))))
    if kind == "histogram":
        yield f"{base}_bucket", {*known, "le"}
        yield from ((f"{base}_{part}", known) for part in ("sum", "count"))
    else:
        yield base + ("_total" if kind == "counter" else ""), known


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
# What the library's own collector adds to every page.
for family in PROCESS_COLLECTOR.collect():
    METRICS.update({sample.name: set() for sample in family.samples})


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """The metrics of an expression, each with the labels that it is selected by."""
    found = re.findall(r"\b((?:recloop|grpc_server|process)_\w+)(?:\{([^}]*)\})?", expression)
    return [(name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels))) for name, labels in found]


def grouped(expression: str) -> set[str]:
    """The labels that it sums or joins by."""
    lists = re.findall(r"\b(?:by|on) ?\(([^)]*)\)", expression)
    return {one.strip() for part in lists for one in part.split(",")}


def check(expression: str) -> set[str]:
    """Fails on a metric or label that the code does not make; all labels that its series can have."""
    used = selectors(expression)
    assert used, expression
    of_all: set[str] = set()
    for metric, labels in used:
        assert metric in METRICS, metric
        assert labels <= METRICS[metric] | TARGET_LABELS, metric
        of_all |= METRICS[metric]
    assert grouped(expression) <= of_all | TARGET_LABELS, expression
    return of_all
