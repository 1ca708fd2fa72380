"""Alerts and dashboards name metrics that the code has, with labels that they have; each alert has its line
in the runbook and its tests. `make k8s-validate` runs those, and reads every query as Prometheus does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from k8s import dashboards, written
from k8s.checks import promtool
from k8s.grafana import json_of
from local.ports import METRICS_ABOVE, SERVICES
from tests.promql_kit import METRICS, TARGET_LABELS, check, grouped

ROOT = Path(__file__).parents[2]
OBSERVABILITY = ROOT / "k8s/components/observability"
RULE = yaml.safe_load((OBSERVABILITY / "alerts.yaml").read_text())
TESTS = yaml.safe_load((OBSERVABILITY / "rules-test.yaml").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
ALERTS = {one["alert"]: one for group in RULE["spec"]["groups"] for one in group["rules"]}
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
QUERIES = {
    f"{dashboard.name}: {graph.title}": graph.lines
    for dashboard in dashboards.ALL
    for graph in dashboard.graphs
}


def test_what_is_written_from_the_code_is_up_to_date():
    assert written.stale() == []


def test_the_code_makes_metrics_that_can_be_found():
    assert len(METRICS) > 100


@pytest.mark.parametrize("name", ALERTS)
def test_an_alerts_metrics_and_labels_are_the_codes(name):
    alert = ALERTS[name]
    possible = check(alert["expr"]) | TARGET_LABELS
    told = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
    assert told <= (grouped(alert["expr"]) or possible)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_its_line_in_the_runbook(name):
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert f"| `{name}` | {alert['labels']['severity']} | " in RUNBOOK


def test_the_runbook_has_no_line_of_an_alert_that_is_gone():
    assert set(re.findall(r"^\| `(\w+)` \|", RUNBOOK, re.M)) == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_it_is_tested_when_an_alert_fires_and_when_it_does_not(name):
    cases = [case for one in TESTS["tests"] for case in one["alert_rule_test"] if case["alertname"] == name]
    assert [case for case in cases if case.get("exp_alerts")]
    assert [case for case in cases if not case.get("exp_alerts")]


def test_the_tests_series_are_the_codes():
    for one in TESTS["tests"]:
        for series in one["input_series"]:
            check(series["series"])


# -- dashboards


@pytest.mark.parametrize("where", QUERIES)
def test_a_graph_asks_for_metrics_and_labels_that_the_code_makes(where):
    for expression, legend in QUERIES[where]:
        possible = check(expression) | TARGET_LABELS
        told = set(re.findall(r"{{(\w+)}}", legend))
        assert told <= possible
        # A sum keeps what it is summed by, and nothing else tells its lines apart.
        assert told == grouped(expression.partition(" / ")[0].partition(" and ")[0]) - {"le"}


@pytest.mark.parametrize("dashboard", dashboards.ALL, ids=lambda one: one.name)
def test_a_dashboard_is_written_as_grafana_takes_it(dashboard):
    found = json.loads((OBSERVABILITY / f"dashboards/{dashboard.name}.json").read_text())
    assert found == json_of(dashboard)
    places = [tuple(panel["gridPos"].values()) for panel in found["panels"]]
    assert len(set(places)) == len(places) == len(dashboard.graphs)
    assert len({graph.title for graph in dashboard.graphs}) == len(dashboard.graphs)


def test_the_dashboards_cover_the_loop():
    asked = " ".join(expression for lines in QUERIES.values() for expression, _ in lines)
    stages = ("collector_ack", "joiner_emit", "trainer_wait", "trainer_held", "ranking_delta")
    for metric in (
        "grpc_server_handled_total",
        "grpc_server_handling_seconds_bucket",
        *(f"recloop_{stage}_seconds_bucket" for stage in stages),
        "recloop_ranking_generation",
        "recloop_ranking_sequence",
        "recloop_joiner_items_total",
        "recloop_feature_lag_records",
        'recloop_release_served{figure="ctr"}',
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    ):
        assert metric in asked, metric


def test_a_cluster_and_compose_show_the_same_files():
    component = yaml.safe_load((OBSERVABILITY / "kustomization.yaml").read_text())
    (generated,) = component["configMapGenerator"]
    assert generated["files"] == sorted(f"dashboards/{one.name}.json" for one in dashboards.ALL)
    assert generated["options"]["labels"] == {"grafana_dashboard": "1"}
    grafana = COMPOSE["grafana"]
    mounts = dict(one.removeprefix("./").removesuffix(":ro").split(":") for one in grafana["volumes"][:3])
    assert mounts["k8s/components/observability/dashboards"] == "/dashboards"
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.removeprefix("/dashboards/") in {f"{one.name}.json" for one in dashboards.ALL}
    providers = yaml.safe_load((OBSERVABILITY / "compose/dashboards.yaml").read_text())["providers"]
    assert [one["options"]["path"] for one in providers] == ["/dashboards"]
    assert {path for path in mounts if not (ROOT / path).exists()} == set()


def test_composes_prometheus_asks_every_process_and_has_the_alerts():
    config = yaml.safe_load((OBSERVABILITY / "compose/prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    asked = {one["labels"]["pod"]: one["targets"] for one in job["static_configs"]}
    ours = {
        name: [f"{name}:{SERVICES[name.replace('-', '_')] + METRICS_ABOVE}"]
        for name, service in COMPOSE.items()
        if "HEALTH_TARGET" in service.get("environment", {})
    }
    assert asked == ours
    mounted = dict(one.removesuffix(":ro").rsplit(":", 1) for one in COMPOSE["prometheus"]["volumes"])
    assert mounted["./k8s/components/observability/rules.yaml"] == config["rule_files"][0]


def test_compose_runs_the_prometheus_that_the_rules_are_tested_with():
    _, minor, patch = promtool.VERSION.split(".")
    assert COMPOSE["prometheus"]["image"] == f"prom/prometheus:v3.{int(minor) - 300}.{patch}"


# -- by Prometheus' own tool, where it is

PROMTOOL = promtool.tool(print, build=False)
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool on the PATH, and make k8s-validate has not built it yet"
)


@needs_promtool
def test_alerts_fire_when_they_should_and_every_query_is_promql():
    assert PROMTOOL is not None
    assert list(promtool.problems(PROMTOOL, OBSERVABILITY)) == []


@needs_promtool
@pytest.mark.parametrize(
    ("file", "right", "wrong", "said"),
    [
        ("rules.yaml", "recloop_serving == 0", "recloop_serving == 2", "RecloopNotServing"),
        ("rules.yaml", "for: 5m", "for: 9m", "RecloopNotServing"),
        ("rules.yaml", "> 0.01", "> 0.001", "RecloopErrors"),
        ("rules.yaml", "[15m]) > 0", "[15m) > 0", "rules.yaml"),
        ("rules-test.yaml", "ranking-0 has not served", "ranking-1 has not served", "RecloopNotServing"),
    ],
)
def test_what_is_wrong_with_an_alert_is_found(file, right, wrong, said, tmp_path):
    assert PROMTOOL is not None
    for name in (promtool.RULES, promtool.TESTS):
        text = (OBSERVABILITY / name).read_text()
        assert name != file or right in text
        (tmp_path / name).write_text(text.replace(right, wrong, 1) if name == file else text)
    found = list(promtool.problems(PROMTOOL, tmp_path))
    assert any(said in problem for problem in found), found


@needs_promtool
def test_a_query_that_is_no_promql_is_found(monkeypatch):
    assert PROMTOOL is not None
    monkeypatch.setattr(promtool.dashboards, "queries", lambda: [("page: graph", "sum(rate(up[5m])")])
    (problem,) = promtool.problems(PROMTOOL, OBSERVABILITY)
    assert problem.startswith("dashboards: ") and "page" in problem
