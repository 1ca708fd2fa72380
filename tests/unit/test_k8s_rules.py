"""The manifests keep the rules of k8s/checks, and each rule finds what it is there for."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s import sizing, written
from k8s.checks import schemas, sizes
from k8s.checks.build import K8S, build, builder, overlays
from k8s.checks.objects import Objects
from k8s.checks.rules import problems

pytestmark = pytest.mark.skipif(builder() is None, reason="neither kubectl nor kustomize is on the PATH")
DEPLOY_MD = (K8S.parent / "docs/deploy.md").read_text()
BUILT: dict[str, Objects] = {}


def built(overlay: str) -> Objects:
    """A copy of one's own, to plant something in."""
    if overlay not in BUILT:
        BUILT[overlay] = build(overlay)
    return copy.deepcopy(BUILT[overlay])


@pytest.mark.parametrize("overlay", overlays())
def test_an_overlay_keeps_every_rule(overlay):
    assert problems(built(overlay)) == []


@pytest.mark.parametrize("overlay", overlays())
def test_kubernetes_own_kinds_have_no_unknown_or_missing_field(overlay):
    assert list(schemas.problems(built(overlay), None)) == []


def test_the_sizes_in_the_docs_are_those_that_the_command_prints():
    said = re.search(r"<!-- sizes -->\n(.*?)\n<!-- /sizes -->", DEPLOY_MD, re.S)
    assert said
    lines = ["```", *(f"{name}: {sizes.size(built(name)).line()}" for name in overlays()), "```"]
    assert said[1].splitlines() == lines, "\n".join(lines)


def test_every_component_is_part_of_an_overlay_and_explained():
    used = set()
    for path in K8S.glob("*/*/kustomization.yaml"):
        listed = yaml.safe_load(path.read_text()).get("components", [])
        used |= {(path.parent / one).resolve().name for one in listed}
    components = {path.parent.name for path in K8S.glob("components/*/kustomization.yaml")}
    assert used == components
    assert [one for one in components - {"job-pods"} if f"| `{one}` |" not in DEPLOY_MD] == []


def test_kafkas_objects_are_those_that_the_code_gives():
    assert written.stale() == []


def test_sizes_are_the_sums_of_what_is_asked_for():
    resources = {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": 2, "memory": "1536Mi"}}
    template = {"spec": {"containers": [{"resources": resources}]}}
    meta = {"name": "a"}
    pool = {"replicas": 3, "resources": resources, "storage": {"volumes": [{"size": "10Gi"}]}}
    claim = {"resources": {"requests": {"storage": "5Gi"}}}
    objects = Objects(
        "made",
        [
            {"kind": "Deployment", "metadata": meta, "spec": {"template": template}},
            {
                "kind": "HorizontalPodAutoscaler",
                "metadata": meta,
                "spec": {"scaleTargetRef": meta, "minReplicas": 2},
            },
            {"kind": "Job", "metadata": meta, "spec": {"template": template}},
            {"kind": "KafkaNodePool", "metadata": meta, "spec": pool},
            {"kind": "PersistentVolumeClaim", "metadata": meta, "spec": claim},
        ],
    )
    found = sizes.size(objects)
    assert (found.requested_cores, found.limit_cores) == (5 * 0.25, 5 * 2)
    assert (found.requested_bytes, found.limit_bytes) == (5 * sizes.GIB, 7.5 * sizes.GIB)
    assert found.volume_bytes == 35 * sizes.GIB


def test_what_all_pods_have_is_the_same_for_the_page():
    shared, own = (
        yaml.safe_load((K8S / path).read_text())
        for path in ("base/shared/deployment.yaml", "components/page/shared.yaml")
    )
    assert own == shared


def test_a_definition_is_read_strictly():
    schema = schemas.strict(
        {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "required": ["type"],
                    "properties": {
                        "type": {"type": "string", "enum": ["a"]},
                        "properties": {"type": "integer"},
                        "port": {"x-kubernetes-int-or-string": True, "type": "object"},
                        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        "map": {"type": "object", "additionalProperties": {"type": "string"}},
                    },
                }
            },
        }
    )
    kinds = {("example.org/v1", "Thing"): schema}

    def found(spec: dict[str, Any]) -> list[str]:
        one = {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec}
        schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
        return list(schemas.problems(Objects("made", [one]), kinds))

    assert found({"type": "a", "properties": 1, "port": "grpc", "open": {"x": 1}, "map": {"x": "y"}}) == []
    for wrong in (
        {},
        {"type": "b"},
        {"type": "a", "other": 1},
        {"type": "a", "port": 1.5},
        {"type": "a", "map": {"x": 1}},
    ):
        assert len(found(wrong)) == 1
    assert "no schema of" in next(schemas.problems(Objects("made", [{**SCALER}]), kinds))


SCALER = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "x"}}
Plant = Callable[[Objects], None]


def container(objects: Objects, name: str, kind: str = "Deployment") -> dict[str, Any]:
    spec = objects.named(kind, name)["spec"]
    template = spec["jobTemplate"]["spec"]["template"] if kind == "CronJob" else spec["template"]
    return template["spec"]["containers"][0]


def pod(objects: Objects, name: str) -> dict[str, Any]:
    return objects.named("Deployment", name)["spec"]["template"]["spec"]


def without(kind: str, name: str) -> Plant:
    return lambda objects: objects.all.remove(objects.named(kind, name))


def setting(name: str, value: str) -> Plant:
    def plant(objects: Objects) -> None:
        for config in objects.of("ConfigMap"):
            config["data"][name] = value

    return plant


def env(of: str, name: str, value: str) -> Plant:
    return lambda objects: container(objects, of)["env"].append({"name": name, "value": value})


def scaled(kind: str, name: str, field: str, value: int) -> Plant:
    return lambda objects: objects.named(kind, name)["spec"].update({field: value})


def change(path: str, value: Any, kind: str, name: str) -> Plant:
    """Sets the value at a path of an object (~ stands for a / in a key); DROP takes it away."""

    def plant(objects: Objects) -> None:
        at = objects.named(kind, name)
        *parents, last = [int(key) if key.isdigit() else key.replace("~", "/") for key in path.split("/")]
        for key in parents:
            at = at[key]
        if value is DROP:
            del at[last]
        else:
            at[last] = value

    return plant


DROP = object()
MAIN = "spec/template/spec/containers/0"
CRON = "spec/jobTemplate/spec/template/spec/containers/0"

PLANTED: dict[str, tuple[Plant, str]] = {
    "no collector": (without("Deployment", "collector"), "no Deployment runs python -m services.collector"),
    "no startup probe": (
        lambda o: container(o, "ranking").pop("startupProbe"),
        "Deployment/ranking: no startupProbe",
    ),
    "no readiness probe": (
        lambda o: container(o, "gateway").pop("readinessProbe"),
        "Deployment/gateway: no readinessProbe",
    ),
    "no liveness probe": (
        lambda o: container(o, "redis", "StatefulSet").pop("livenessProbe"),
        "StatefulSet/redis: no livenessProbe",
    ),
    "a probe on the service port": (
        change(f"{MAIN}/readinessProbe/grpc/port", 7052, "Deployment", "recall"),
        "Deployment/recall: readinessProbe: port 7052, the admin port is 7152",
    ),
    "a probe by HTTP": (
        change(f"{MAIN}/readinessProbe", {"httpGet": {"port": 7252}}, "Deployment", "recall"),
        "Deployment/recall: readinessProbe: not by gRPC",
    ),
    "liveness that asks for readiness": (
        change(f"{MAIN}/livenessProbe/grpc/service", "", "Deployment", "trainer"),
        "Deployment/trainer: livenessProbe: asks for '', not 'liveness'",
    ),
    "a hasty liveness": (
        change(f"{MAIN}/livenessProbe/failureThreshold", 1, "Deployment", "joiner"),
        "Deployment/joiner: livenessProbe: gives up after 10000 ms",
    ),
    "no memory limit": (
        change(f"{MAIN}/resources/limits/memory", DROP, "Deployment", "lake"),
        "Deployment/lake: no limit of memory",
    ),
    "no CPU limit": (
        change(f"{MAIN}/resources/limits/cpu", DROP, "Deployment", "ranking"),
        "Deployment/ranking: no CPU limit, and its threads are set from it",
    ),
    "no request of a clocked pod": (
        change(f"{CRON}/resources/requests/cpu", DROP, "CronJob", "trainer-batch"),
        "CronJob/trainer-batch: no request of cpu",
    ),
    "a writable root": (
        change(f"{MAIN}/securityContext/readOnlyRootFilesystem", False, "Deployment", "feature"),
        "Deployment/feature: readOnlyRootFilesystem is not restricted",
    ),
    "root": (
        lambda o: pod(o, "collector")["securityContext"].pop("runAsNonRoot"),
        "Deployment/collector: runAsNonRoot is not restricted",
    ),
    "a capability": (
        change(f"{MAIN}/securityContext/capabilities/drop", [], "Deployment", "feature"),
        "Deployment/feature: capabilities.drop is not restricted",
    ),
    "latest": (
        change(f"{MAIN}/image", "redis:latest", "StatefulSet", "redis"),
        "StatefulSet/redis: image 'redis:latest': an exact tag",
    ),
    "no image": (
        change(f"{MAIN}/image", DROP, "Deployment", "recall"),
        "Deployment/recall: image '': an exact tag",
    ),
    "no tag": (
        change(f"{MAIN}/image", "registry.example.com:5000/redis", "StatefulSet", "redis"),
        "StatefulSet/redis: image 'registry.example.com:5000/redis': an exact tag",
    ),
    "another version": (
        change(f"{MAIN}/image", "registry.example.com/recloop:0.0.9", "Deployment", "gateway"),
        "Deployment/gateway: image 'registry.example.com/recloop:0.0.9', this is",
    ),
    "an unknown setting": (
        setting("RECLOOP_FEATURE_SETS", "world"),
        "ConfigMap: RECLOOP_FEATURE_SETS: no process",
    ),
    "a setting of another process": (
        env("gateway", "RECLOOP_WINDOW_MS", "20000"),
        "Deployment/gateway: RECLOOP_WINDOW_MS: not a setting of it",
    ),
    "a bad value": (
        setting("RECLOOP_GRPC__DRAIN_MS", "-1"),
        "Deployment/gateway: grpc.drain_ms = '-1'",
    ),
    "a bad feature set": (
        setting("RECLOOP_FEATURE_SET", "words"),
        "Deployment/ranking: feature_set = 'words'",
    ),
    "no ConfigMap": (
        lambda o: [o.all.remove(one) for one in o.of("ConfigMap")],
        "Deployment/gateway: ConfigMap recloop-settings",
    ),
    "another command": (
        change(f"{MAIN}/command", ["python", "-m", "services.gate"], "Deployment", "gateway"),
        "Deployment/gateway: python -m services.gate: no program of the loop",
    ),
    "a store that is no volume": (
        setting("RECLOOP_MODEL_STORE_URI", "/srv/models"),
        "Deployment/ranking: model_store_uri /srv/models is in none of its volumes",
    ),
    "a claim that is not there": (without("PersistentVolumeClaim", "lake"), "Deployment/lake: no claim lake"),
    "no budget": (
        without("PodDisruptionBudget", "ranking"),
        "Deployment/ranking: 0 PodDisruptionBudgets, 1 is wanted",
    ),
    "a budget that blocks a node": (
        change("spec/maxUnavailable", 0, "PodDisruptionBudget", "release"),
        "PodDisruptionBudget/release: maxUnavailable is not 1",
    ),
    "all on one node": (
        lambda o: pod(o, "gateway").pop("topologySpreadConstraints"),
        "Deployment/gateway: not spread over zones and nodes",
    ),
    "no pause before the end": (
        lambda o: container(o, "gateway").pop("lifecycle"),
        "Deployment/gateway: no preStop pause",
    ),
    "a short grace": (
        lambda o: pod(o, "joiner").update(terminationGracePeriodSeconds=30),
        "Deployment/joiner: grace 30 s, preStop 5 s + shutdown 30000 ms",
    ),
    "a drain as long as the shutdown": (
        setting("RECLOOP_SHUTDOWN_MS", "20000"),
        "Deployment/feature: shutdown_ms 20000 leaves nothing behind the drain",
    ),
    "two trainers": (
        scaled("Deployment", "trainer", "replicas", 2),
        "Deployment/trainer: up to 2 replicas, a second would fence the first",
    ),
    "a rolling trainer": (
        lambda o: o.named("Deployment", "trainer")["spec"].pop("strategy"),
        "Deployment/trainer: not Recreate",
    ),
    "more joiners than partitions": (
        scaled("ScaledObject", "joiner", "maxReplicaCount", 5),
        "Deployment/joiner: up to 5 replicas, its topics have 4 partitions",
    ),
    "a scaler and replicas": (
        scaled("Deployment", "joiner", "replicas", 2),
        "Deployment/joiner: replicas, and ScaledObject/joiner",
    ),
    "a scaler of nothing": (
        change("spec/scaleTargetRef/name", "ranker", "HorizontalPodAutoscaler", "ranking"),
        "HorizontalPodAutoscaler/ranking: Deployment/ranker does not exist",
    ),
    "two scalers": (
        change("spec/scaleTargetRef/name", "joiner", "ScaledObject", "feature-pipeline"),
        "scales Deployment/joiner already",
    ),
    "lag of a group that is not the code's": (
        change("spec/triggers/0/metadata/consumerGroup", "join", "ScaledObject", "joiner"),
        "ScaledObject/joiner: Deployment/joiner reads no topic feature-snapshots as group join",
    ),
    "lag of a topic that is not the code's": (
        change("spec/triggers/1/metadata/topic", "impression", "ScaledObject", "joiner"),
        "ScaledObject/joiner: Deployment/joiner reads no topic impression as group joiner",
    ),
    "two trainers at once by the clock": (
        change("spec/concurrencyPolicy", "Allow", "CronJob", "trainer-batch"),
        "CronJob/trainer-batch: concurrencyPolicy is not Forbid",
    ),
    "a late start without an end": (
        change("spec/startingDeadlineSeconds", DROP, "CronJob", "trainer-batch"),
        "CronJob/trainer-batch: no startingDeadlineSeconds",
    ),
    "a run into another day": (
        change("spec/schedule", "0 20 * * *", "CronJob", "trainer-batch"),
        "CronJob/trainer-batch: a run may end on the day after",
    ),
    "a service for nobody": (
        change("spec/selector/app.kubernetes.io~component", DROP, "Service", "feature"),
        "Service/feature: 10 kinds of pods behind it",
    ),
    "another service port": (
        change("spec/ports/0/port", 7154, "Service", "ranking"),
        "Service/ranking: port 7154 is not the port grpc of Deployment/ranking",
    ),
    "a balancing service": (
        change("spec/clusterIP", DROP, "Service", "ranking"),
        "Service/ranking: not headless",
    ),
    "another port than the code's": (
        change(f"{MAIN}/ports/0/containerPort", 7999, "Deployment", "collector"),
        "Deployment/collector: ports {'grpc': 7999",
    ),
    "loopback": (setting("RECLOOP_GRPC__HOST", "127.0.0.1"), "Deployment/gateway: listens on 127.0.0.1 only"),
    "a target that is not there": (
        setting("RECLOOP_RANKING_TARGET", "dns:///rankings:7054"),
        "Deployment/gateway: ranking_target dns:///rankings:7054 is no Service here",
    ),
    "a target at one pod": (
        setting("RECLOOP_RANKING_TARGET", "ranking:7054"),
        "Deployment/gateway: ranking_target ranking:7054: without dns:///",
    ),
    "no policy": (
        lambda o: [o.all.remove(one) for one in o.of("NetworkPolicy")],
        "Deployment/gateway: no NetworkPolicy for Ingress",
    ),
    "a call that is shut out": (
        without("NetworkPolicy", "ranking"),
        "Deployment/ranking: no NetworkPolicy lets gateway in",
    ),
    "a call that is shut in": (
        without("NetworkPolicy", "to-recall"),
        "Deployment/gateway: recall_target dns:///recall:7052: no NetworkPolicy lets it out",
    ),
    "a caller that the code does not have": (
        change(
            "spec/ingress/0/from/0/podSelector/matchExpressions/0/values",
            ["gateway", "joiner"],
            "NetworkPolicy",
            "feature",
        ),
        "Deployment/feature: joiner is let in, and its code does not call it",
    ),
    "no way to Kafka": (
        without("NetworkPolicy", "to-kafka"),
        "Deployment/joiner: Kafka on port 9092 is closed to it",
    ),
    "no way to Redis": (
        without("NetworkPolicy", "to-redis"),
        "Deployment/feature: Redis on port 6379 is closed to it",
    ),
    "a way to Redis that the code does not need": (
        change("spec/podSelector/matchExpressions", [], "NetworkPolicy", "to-redis"),
        "Deployment/gateway: Redis is open to it, and its code does not use it",
    ),
    "no names": (without("NetworkPolicy", "names"), "Deployment/gateway: names cannot be looked up"),
    "no metrics": (without("NetworkPolicy", "metrics"), "Deployment/gateway: metrics port 7251 is closed"),
    "no topic": (without("KafkaTopic", "samples"), "KafkaTopic/samples: missing"),
    "a topic too many": (
        change("metadata/name", "sample", "KafkaTopic", "samples"),
        "KafkaTopic/sample: the code has no such topic",
    ),
    "other partitions": (
        change("spec/partitions", 8, "KafkaTopic", "samples"),
        "KafkaTopic/samples: partitions 8, the code says 4",
    ),
    "another retention": (
        change("spec/config/retention.ms", "1", "KafkaTopic", "samples"),
        "KafkaTopic/samples: config",
    ),
    "more copies than nodes": (
        change("spec/replicas", 1, "KafkaNodePool", "nodes"),
        "Kafka/recloop: default.replication.factor 3, on 1 nodes 1 is wanted",
    ),
    "small records": (
        change("spec/kafka/config/message.max.bytes", 1_048_576, "Kafka", "recloop"),
        "Kafka/recloop: message.max.bytes is below the largest record",
    ),
}


def extra_acl(of: str) -> Plant:
    def plant(objects: Objects) -> None:
        acls = objects.named("KafkaUser", of)["spec"]["authorization"]["acls"]
        resource = {"type": "topic", "name": "samples", "patternType": "literal"}
        acls.append({"resource": resource, "operations": ["Write"]})

    return plant


# In the overlay with logins and certificates.
PLANTED_SECURED: dict[str, tuple[Plant, str]] = {
    "no rule": (
        change("spec/authorization/acls/1", DROP, "KafkaUser", "ranking"),
        "KafkaUser/ranking: lacks",
    ),
    "a rule too many": (
        extra_acl("collector"),
        "KafkaUser/collector: the code does not allow Write of topic samples",
    ),
    "no user": (without("KafkaUser", "joiner"), "KafkaUser/joiner: missing"),
    "a user too many": (
        change("metadata/name", "joiner2", "KafkaUser", "joiner"),
        "KafkaUser/joiner2: the code has no such user",
    ),
    "an open listener": (
        change("spec/kafka/listeners/0/authentication", DROP, "Kafka", "recloop"),
        "Kafka/recloop: listener tls takes whoever comes",
    ),
    "another's password": (
        lambda o: next(one for one in pod(o, "collector")["volumes"] if one["name"] == "kafka-login")[
            "projected"
        ]["sources"][0]["secret"].update(name="ranking"),
        "Deployment/collector: Kafka's password is of secret ['ranking'], 'collector' is its own",
    ),
    "no login": (
        lambda o: [
            container(o, "lake")["env"].remove(one)
            for one in list(container(o, "lake")["env"])
            if one["name"].startswith("RECLOOP_KAFKA__")
        ],
        "Deployment/lake: logs in to Kafka as '', 'lake' is its user",
    ),
    "no certificate": (without("Certificate", "release"), "Deployment/release: no Certificate release"),
    "another's name on a certificate": (
        change("spec/uris/0", "spiffe://recloop/operator", "Certificate", "joiner"),
        "Certificate/joiner: not what the code gives",
    ),
    "another's certificate": (
        lambda o: next(one for one in pod(o, "joiner")["volumes"] if one["name"] == "tls")["secret"].update(
            secretName="trainer-tls"
        ),
        "Deployment/joiner: /etc/recloop/tls/tls.crt is not of secret joiner-tls",
    ),
    "half of the certificate's files": (
        setting("RECLOOP_TLS__CA_FILE", ""),
        "certificate_file, key_file and ca_file: all three, or none",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found(name):
    check_planted("prod", *PLANTED[name])


@pytest.mark.parametrize("name", PLANTED_SECURED)
def test_what_is_planted_in_logins_and_certificates_is_found(name):
    check_planted("secured", *PLANTED_SECURED[name])


def check_planted(overlay: str, plant: Plant, said: str) -> None:
    objects = built(overlay)
    plant(objects)
    found = problems(objects)
    assert any(said in line for line in found), found[:10]
    assert all(line.startswith(f"{overlay}: ") for line in found)


def validate(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "k8s.checks", "--root", str(root), "--own-kinds-only"]
    return subprocess.run(command, cwd=K8S.parent, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("base/ranking.yaml", "livenessProbe:", "local: Deployment/ranking: no livenessProbe"),
        ("base/trainer-batch.yaml", "schedule:", "CronJob/trainer-batch: spec: 'schedule' is a required"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.endswith(".yaml") else "",
)
def test_the_command_is_red_when_a_line_is_taken_out_of_a_file(tmp_path, file, line, said):
    root = tmp_path / "k8s"
    shutil.copytree(
        K8S, root, ignore=shutil.ignore_patterns("__pycache__", "prod", "managed", "flink", "secured", "*.py")
    )
    kept = [one for one in (root / file).read_text().splitlines() if line not in one]
    (root / file).write_text("\n".join(kept))
    done = validate(root)
    assert done.returncode == 1
    assert said in done.stderr
    assert not re.search(r"^k8s-validate: local: .*no problems$", done.stdout, re.MULTILINE)


def test_sizing_divides_what_was_measured_by_the_requests():
    days = {
        "arms": {"a": {"requests": 600}, "b": {"requests": 400}},
        "cpu_s": {"gateway": 2.0, "ranking": 5.0},
    }
    found = sizing.table(days, {"peak_memory_mb": {"ranking": 856.4}}).splitlines()
    assert found[2:] == ["| ranking | 5.0 | 856 |", "| gateway | 2.0 |  |"]
