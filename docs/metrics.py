"""``python docs/metrics.py``: writes docs/metrics.md, every metric of every process as the code declares it.

It reads the sources and imports nothing: a metric is a call of counter, gauge or histogram (services.runtime.
telemetry), whose arguments are written out or are constants of the same file.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "metrics.md"
PREFIX = "recloop_"
_KINDS = ("counter", "gauge", "histogram")
_PARAMETERS = ("name", "help_text", "labels", "buckets", "prefix")
_HEAD = """# Metrics

Made from the code by `python docs/metrics.py`. Prometheus text over HTTP on every process's metrics port, its
service port + 200. Counters are named as Prometheus shows them, with `_total`; a histogram stands for its
`_bucket`, `_sum` and `_count`.
"""


@dataclass(frozen=True)
class Metric:
    """One declared metric. ``owner``: the folder that declares it, "services/joiner"."""

    owner: str
    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


def declared(root: Path = ROOT) -> list[Metric]:
    """All of them, by owner and name. ValueError names a declaration that cannot be read."""
    found: dict[tuple[str, str], Metric] = {}
    for folder in ("services", "trainer"):
        for path in sorted((root / folder).rglob("*.py")):
            inside = path.relative_to(root).parent.as_posix()
            for metric in _in_file(path, inside):
                found[metric.owner, metric.name] = metric
    return [found[key] for key in sorted(found)]


def _in_file(path: Path, owner: str) -> Iterator[Metric]:
    tree = ast.parse(path.read_text())
    constants = {
        target.id: statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    imported = {
        alias.asname or alias.name
        for statement in tree.body
        if isinstance(statement, ast.ImportFrom) and statement.module == "services.runtime.telemetry"
        for alias in statement.names
    }
    for call in (one for one in ast.walk(tree) if isinstance(one, ast.Call)):
        kind = _kind(call.func, path.name == "telemetry.py", imported)
        if kind not in _KINDS:
            continue
        given = dict(zip(_parameters(kind), call.args, strict=False))
        given |= {one.arg: one.value for one in call.keywords if one.arg}
        try:
            name = str(_value(given["name"], constants))
            help_text = str(_value(given["help_text"], constants))
            labels = tuple(_value(given["labels"], constants)) if "labels" in given else ()
            prefix = str(_value(given["prefix"], constants)) if "prefix" in given else PREFIX
        except (KeyError, ValueError) as error:
            where = f"{path}:{call.lineno}"
            raise ValueError(f"{where}: a {kind} whose declaration cannot be read: {error}") from error
        total = "_total" if kind == "counter" else ""
        yield Metric(owner, f"{prefix}{name}{total}", kind, labels, help_text.rstrip("."))


def _kind(function: ast.expr, is_telemetry: bool, imported: set[str]) -> str:
    """The name of a factory of telemetry's; others have functions of the same names."""
    if isinstance(function, ast.Name):
        return function.id if is_telemetry or function.id in imported else ""
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return function.attr if function.value.id == "telemetry" else ""
    return ""


def _parameters(kind: str) -> tuple[str, ...]:
    return _PARAMETERS if kind == "histogram" else tuple(one for one in _PARAMETERS if one != "buckets")


def _value(node: ast.expr, constants: Mapping[str, ast.expr]) -> object:
    """Of a constant, a name of one, or a sequence of both."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in constants:
        return _value(constants[node.id], constants)
    if isinstance(node, ast.List | ast.Tuple):
        parts: list[object] = []
        for one in node.elts:
            if isinstance(one, ast.Starred):
                parts += _value(one.value, constants)  # type: ignore[arg-type]
            else:
                parts.append(_value(one, constants))
        return parts
    raise ValueError(ast.unparse(node))


def document(metrics: list[Metric]) -> str:
    """The whole file."""
    parts = [_HEAD]
    for owner in dict.fromkeys(metric.owner for metric in metrics):
        whose = "every process" if owner == "services/runtime" else owner.rpartition("/")[2]
        parts += [f"## {whose}", "", "| metric | kind | labels | what |", "|---|---|---|---|"]
        for one in metrics:
            if one.owner == owner:
                labels = ", ".join(f"`{label}`" for label in one.labels)
                parts.append(f"| `{one.name}` | {one.kind} | {labels} | {one.help} |")
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    OUT.write_text(document(declared()))
