"""The manifests say what the code says: services, ports, commands, settings, topics' image versions."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BASE = ROOT / "k8s/base"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
# name -> (module, service port): the same as services/*/settings.py, which the next test reads.
PORTS = {
    "gateway": ("services.gateway", 7051),
    "recall": ("services.recall", 7052),
    "feature": ("services.feature", 7053),
    "ranking": ("services.ranking", 7054),
    "collector": ("services.collector", 7055),
    "joiner": ("services.joiner", 7056),
    "feature-pipeline": ("services.feature_pipeline", 7057),
    "release": ("services.release", 7058),
    "trainer": ("trainer", 7059),
    "lake": ("services.lake", 7060),
}


def documents() -> list[dict]:
    return [
        doc for path in sorted(BASE.glob("*.yaml")) for doc in yaml.safe_load_all(path.read_text()) if doc
    ]


def deployments() -> dict[str, dict]:
    return {doc["metadata"]["name"]: doc for doc in documents() if doc["kind"] == "Deployment"}


def container(name: str) -> dict:
    return deployments()[name]["spec"]["template"]["spec"]["containers"][0]


def test_every_service_is_deployed_on_kubernetes_and_compose():
    assert set(deployments()) == set(PORTS)
    assert set(PORTS) <= set(COMPOSE["services"])


@pytest.mark.parametrize("name", PORTS)
def test_ports_are_the_defaults_of_the_settings(name):
    module, port = PORTS[name]
    assert f"port={port}" in (ROOT / module.replace(".", "/") / "settings.py").read_text()
    declared = {entry["name"]: entry["containerPort"] for entry in container(name)["ports"]}
    assert declared == {"grpc": port, "admin": port + 100, "metrics": port + 200}
    assert f"127.0.0.1:{port + 100}" in COMPOSE["services"][name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", PORTS)
def test_commands_start_the_service(name):
    module, _ = PORTS[name]
    for command in (container(name)["command"], COMPOSE["services"][name]["command"]):
        assert command[:3] == ["python", "-m", module]


@pytest.mark.parametrize("name", PORTS)
def test_probes_limits_and_restricted_security_are_there(name):
    spec = container(name)
    admin = PORTS[name][1] + 100
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert spec[probe]["grpc"]["port"] == admin
    assert spec["resources"]["limits"]["memory"]
    assert spec["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert deployments()[name]["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    assert COMPOSE["services"][name]["mem_limit"]


def test_no_image_is_latest():
    images = [service.get("image", "") for service in COMPOSE["services"].values()]
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    images += [f"{image['newName']}:{image['newTag']}" for image in kustomization["images"]]
    assert all(":" in image and not image.endswith(":latest") for image in images)


def test_compose_runs_the_kafka_version_of_the_launcher():
    jars = (ROOT / "local/kafka_jars.txt").read_text()
    version = COMPOSE["services"]["kafka"]["image"].split(":")[1]
    assert f"kafka_2.13:{version}" in jars


def test_stated_memory_of_compose_is_the_sum_of_its_limits():
    unit = {"m": 1 / 1024, "g": 1}
    services = COMPOSE["services"].values()
    limits = [
        service["mem_limit"] for service in services if "mem_limit" in service and not service.get("profiles")
    ]
    total = sum(float(limit[:-1]) * unit[limit[-1]] for limit in limits)
    assert f"sum to {total:.1f} GB" in (ROOT / "docker-compose.yml").read_text()


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on the PATH")
def test_kustomize_builds_and_every_object_is_valid(tmp_path):
    built = subprocess.run(["kubectl", "kustomize", str(BASE)], capture_output=True, text=True, check=True)
    path = tmp_path / "built.yaml"
    path.write_text(built.stdout)
    checked = subprocess.run(
        [sys.executable, "-m", "kubernetes_validate", "--strict", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_module_that_compose_runs_exists():
    for name, service in COMPOSE["services"].items():
        command = service.get("command", [])
        if command[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(command[2]), f"{name}: no module {command[2]}"
    assert COMPOSE["services"]["topics"]["command"] == ["python", "-m", "local.topic_setup"]
