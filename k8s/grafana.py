"""What a dashboard of Grafana is made of: graphs that ask Prometheus, as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SCHEMA_VERSION = 39
WIDTH, HEIGHT, COLUMNS = 8, 8, 3
# Grafana's name for a range that holds a few scrapes, whatever the zoom.
RANGE = "$__rate_interval"
SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True)
class Graph:
    """One panel: lines are (PromQL, legend)."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    help: str = ""


@dataclass(frozen=True)
class Dashboard:
    """One page; ``name`` is its file and its uid."""

    name: str
    title: str
    graphs: tuple[Graph, ...]


def rate(metric: str, labels: str = "", by: str = "") -> str:
    """Per second, summed."""
    return f"sum{_by(by)} (rate({metric}{_in(labels)}[{RANGE}]))"


def quantiles(metric: str, labels: str = "", by: str = "") -> tuple[tuple[str, str], ...]:
    """p50 and p99 of a histogram."""
    groups = f"{by}, le" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return tuple(
        (
            f"histogram_quantile({q}, sum by ({groups}) (rate({metric}_bucket{_in(labels)}[{RANGE}])))",
            f"{legend}p{q * 100:.0f}",
        )
        for q in (0.5, 0.99)
    )


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def _in(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def json_of(dashboard: Dashboard) -> dict[str, Any]:
    """As Grafana takes it."""
    return {
        "uid": dashboard.name,
        "title": dashboard.title,
        "tags": ["recloop"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": False,
        "time": {"from": "now-30m", "to": "now"},
        "refresh": "10s",
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "links": [
            {
                "title": "recloop",
                "type": "dashboards",
                "tags": ["recloop"],
                "asDropdown": True,
                "keepTime": True,
            }
        ],
        "panels": [_panel(number, graph) for number, graph in enumerate(dashboard.graphs)],
    }


def _panel(number: int, graph: Graph) -> dict[str, Any]:
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": graph.title,
        "description": graph.help,
        "datasource": SOURCE,
        "gridPos": {
            "h": HEIGHT,
            "w": WIDTH,
            "x": number % COLUMNS * WIDTH,
            "y": number // COLUMNS * HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": graph.unit}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + line), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for line, (expression, legend) in enumerate(graph.lines)
        ],
    }
