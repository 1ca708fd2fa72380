"""``python -m k8s.written``: writes the objects that say once more what the contract says.

Topics from services/contract/topics.py; Kafka's users with their rules, and certificates, from
services/contract/access.py; alerts for Prometheus' operator from rules.yaml beside them; Grafana's dashboards
from k8s/dashboards.py. The files are committed, so that ``kubectl apply -k`` needs no Python; a test fails
when they differ.

Users and certificates are named by pod (feature-pipeline, seed), rights belong to the identity that runs
there (feature_pipeline, loadgen).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from k8s import dashboards
from k8s.grafana import Dashboard, json_of
from services.contract import topics
from services.contract.access import LOADGEN, OPERATOR, SERVICES, KafkaRule, kafka_rules
from services.contract.feature_events import FOLD_GROUP, SPLIT_GROUP
from services.runtime.settings import TlsSettings

API = "kafka.strimzi.io/v1"
CLUSTER = "recloop"
COPIES = 3
FOLDER = Path(__file__).parent / "components"
HEAD = "# Written by `python -m k8s.written` from {}.\n"
RULES = FOLDER / "observability/rules.yaml"
DASHBOARDS = FOLDER / "observability/dashboards"
# Of every pod that logs in to Kafka, and of people.
IDENTITIES = {
    **{service.replace("_", "-"): service for service in SERVICES},
    "seed": LOADGEN,
    "load": LOADGEN,
    "operator": OPERATOR,
}
# These call or are called, and have no business with Kafka.
CERTIFIED = {**IDENTITIES, "trainer-batch": "trainer", "lake-compact": "lake"}
KEDA = "keda"
KEDA_GROUPS = ("joiner", SPLIT_GROUP, FOLD_GROUP)
KEDA_TOPICS = (topics.FEATURE_SNAPSHOTS, topics.IMPRESSIONS, topics.ACTIONS, topics.FEATURE_EVENTS)


def topic(of: topics.Topic) -> dict[str, Any]:
    """The KafkaTopic of one topic."""
    config = dict(sorted(of.kafka_config().items()))
    return _object("KafkaTopic", of.name, {"partitions": of.partitions, "replicas": COPIES, "config": config})


def user(name: str) -> dict[str, Any]:
    """The KafkaUser of a pod: what its identity may do, and nothing else."""
    acls = [_acl(rule) for rule in rules_of(name)]
    return _object(
        "KafkaUser",
        name,
        {
            "authentication": {"type": "scram-sha-512"},
            "authorization": {"type": "simple", "acls": acls},
        },
    )


def rules_of(name: str) -> list[KafkaRule]:
    """Of a pod, of people, or of KEDA, which asks how far the groups are behind that it scales by."""
    if name == KEDA:
        groups = [KafkaRule(KEDA, "group", group, ("Describe",)) for group in KEDA_GROUPS]
        return [*groups, *(KafkaRule(KEDA, "topic", one.name, ("Describe",)) for one in KEDA_TOPICS)]
    return [rule for rule in kafka_rules() if rule.identity == IDENTITIES[name]]


def _acl(rule: KafkaRule) -> dict[str, Any]:
    pattern = "prefix" if rule.prefixed else "literal"
    return {
        "resource": {"type": rule.resource, "name": rule.name, "patternType": pattern},
        "operations": list(rule.operations),
    }


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    labels = {"strimzi.io/cluster": CLUSTER}
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name, "labels": labels}, "spec": spec}


def certificate(name: str) -> dict[str, Any]:
    """cert-manager's Certificate of a pod: its identity as URI, its Service's name for those who call it."""
    prefix = TlsSettings.model_fields["identity_prefix"].default
    spec = {
        "secretName": f"{name}-tls",
        "duration": "24h",
        "renewBefore": "8h",
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        "usages": ["digital signature", "server auth", "client auth"],
        "uris": [f"{prefix}{CERTIFIED[name]}"],
        "dnsNames": [name],
        "issuerRef": {"name": "recloop", "kind": "Issuer"},
    }
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": name},
        "spec": spec,
    }


def files() -> dict[Path, str]:
    """Every written file and its text."""
    users = [user(name) for name in (*IDENTITIES, KEDA)]
    return {
        FOLDER / "strimzi-kafka/topics.yaml": _text("topics", [topic(one) for one in topics.ALL]),
        FOLDER / "kafka-users/users.yaml": _text("access", users),
        FOLDER / "mtls/certificates.yaml": _text("access", [certificate(name) for name in CERTIFIED]),
        FOLDER / "observability/alerts.yaml": HEAD.format(RULES.name) + _yaml([alerts()]),
        **{DASHBOARDS / f"{one.name}.json": _json(one) for one in dashboards.ALL},
    }


def alerts() -> dict[str, Any]:
    """The rules as Prometheus' operator takes them."""
    rules = yaml.safe_load(RULES.read_text())
    metadata = {"name": "recloop"}
    kind = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule"}
    return {**kind, "metadata": metadata, "spec": rules}


def _json(dashboard: Dashboard) -> str:
    return json.dumps(json_of(dashboard), indent=1) + "\n"


def _text(source: str, objects: list[dict[str, Any]]) -> str:
    return HEAD.format(f"services/contract/{source}.py") + _yaml(objects)


def _yaml(objects: list[dict[str, Any]]) -> str:
    return yaml.safe_dump_all(objects, sort_keys=False)


def stale() -> list[Path]:
    """The files that the code has changed since."""
    return [path for path, text in files().items() if not path.is_file() or path.read_text() != text]


def main() -> None:
    """Writes them."""
    DASHBOARDS.mkdir(exist_ok=True)
    for path, text in files().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
