"""The image and docker-compose.yml say what the code says: services, ports, commands, settings, versions."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from k8s.checks import code
from k8s.checks.objects import Objects, Pod
from local.ports import ADMIN_ABOVE, SERVICES
from local.processes import SPECS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
LOOP = {
    spec.name.replace("_", "-"): SERVICES[spec.name] for spec in SPECS if spec.in_loop or spec.name == "lake"
}
OURS = {name: service for name, service in COMPOSE.items() if service["image"].startswith("recloop:")}


def environment(name: str) -> dict[str, str]:
    return COMPOSE[name]["environment"]


def as_pod(name: str) -> Pod:
    """A service as the checks of the manifests read one."""
    command = [word.replace("$$", "$") for word in COMPOSE[name]["command"]]
    container = {
        "command": command,
        "env": [{"name": key, "value": str(value)} for key, value in environment(name).items()],
    }
    return Pod(f"compose/{name}", {}, {}, {"containers": [container]})


@pytest.mark.parametrize("name", LOOP)
def test_every_service_of_the_loop_is_there_and_probed_on_its_admin_port(name):
    assert environment(name)["HEALTH_TARGET"] == f"127.0.0.1:{LOOP[name] + ADMIN_ABOVE}"
    assert COMPOSE[name].get("ports", [f"127.0.0.1:{LOOP[name]}:{LOOP[name]}"]) == [
        f"127.0.0.1:{LOOP[name]}:{LOOP[name]}"
    ]
    assert "healthcheck" not in COMPOSE[name]


@pytest.mark.parametrize("name", sorted({*OURS} - {"topics", "trainer-batch"}))
def test_every_process_takes_its_environment(name):
    settings = code.settings(Objects("compose", []), as_pod(name))
    assert settings is not None
    if name in LOOP:
        assert settings.grpc.host == "0.0.0.0"
        assert settings.grpc.port == LOOP[name]
        assert settings.shutdown_ms < 1000 * int(COMPOSE[name]["stop_grace_period"].removesuffix("s"))


@pytest.mark.parametrize("name", OURS)
def test_what_a_process_calls_is_a_service(name):
    for key, value in environment(name).items():
        if key.endswith("_TARGET") and key != "HEALTH_TARGET":
            host, _, port = value.partition(":")
            assert LOOP[host] == int(port)


@pytest.mark.parametrize("name", OURS)
def test_every_container_of_ours_is_restricted(name):
    service = COMPOSE[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["image"] == f"recloop:{VERSION}"


@pytest.mark.parametrize("name", OURS)
def test_a_store_that_a_process_keeps_something_in_is_a_volume(name):
    pod = as_pod(name)
    mounted = [volume.split(":")[1] for volume in COMPOSE[name].get("volumes", ())]
    for store in code.program(pod).stores:
        assert environment(name)[f"RECLOOP_{store.upper()}"] in mounted


def test_jobs_end_and_are_not_probed():
    for name in ("topics", "seed", "load", "trainer-batch"):
        assert COMPOSE[name]["restart"] == "no"
        assert COMPOSE[name]["healthcheck"] == {"disable": True}


def test_the_batch_trainers_command_is_one_of_it():
    shell = COMPOSE["trainer-batch"]["command"][2].replace("$$", "$")
    assert shell.startswith("exec python -m trainer batch --day ")
    assert '"${DAY:-$(date -u -d yesterday +%F)}"' in shell
    assert {"day", "day_s"} <= set(code.BatchSettings.model_fields)


def test_every_module_that_compose_runs_exists():
    for name, service in OURS.items():
        if service["command"][:2] == ["python", "-m"]:
            assert importlib.util.find_spec(service["command"][2]), name


def test_images_have_exact_tags():
    images = [service["image"] for service in COMPOSE.values()]
    images += re.findall(r"^FROM (\S+:\S+)", DOCKERFILE + (ROOT / "flink/Dockerfile").read_text(), re.M)
    assert len(images) > len(COMPOSE)
    assert [image for image in images if not re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+\S*", image)] == []


def test_compose_runs_the_kafka_version_of_the_launcher():
    jars = (ROOT / "local/kafka_jars.txt").read_text()
    version = COMPOSE["kafka"]["image"].split(":")[1]
    assert f"kafka_2.13:{version}" in jars


def total_gb(profiles: set[str]) -> float:
    unit = {"m": 1 / 1024, "g": 1}
    limits = [
        service["mem_limit"]
        for service in COMPOSE.values()
        if not service.get("profiles") or set(service["profiles"]) & profiles
    ]
    return sum(float(limit[:-1]) * unit[limit[-1]] for limit in limits)


def test_stated_memory_of_compose_is_the_sum_of_its_limits():
    assert f"Memory limits sum to {total_gb(set()):.1f} GB" in TEXT
    assert f"with the profile days to {total_gb({'days'}):.1f} GB" in TEXT
    assert f"with load and flink too to {total_gb({'days', 'load', 'flink'}):.1f}" in TEXT
    every = {profile for service in COMPOSE.values() for profile in service.get("profiles", ())}
    assert f"with observability too to {total_gb(every):.1f} GB." in TEXT


def final_stage() -> str:
    return DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]


def test_the_image_is_small_unprivileged_labelled_and_probed():
    final = final_stage()
    assert not re.search(r"\bgcc\b|apt-get|pip install|build-essential", final)
    assert "USER 10001:10001" in final
    assert "services.runtime.probe" in final.split("HEALTHCHECK", 1)[1]
    assert f"ARG VERSION={VERSION}" in final
    for label in ("version", "revision"):
        assert f"org.opencontainers.image.{label}=" in final


def test_a_process_that_joins_starts_where_the_image_has_the_compiled_join():
    copied = re.search(r"^COPY --from=compiled \S+ (\S+)$", final_stage(), re.M)
    assert copied
    assert COMPOSE["joiner"]["working_dir"] == copied[1]
    joiner = next(yaml.safe_load_all((ROOT / "k8s/base/joiner.yaml").read_text()))
    assert joiner["spec"]["template"]["spec"]["containers"][0]["workingDir"] == copied[1]


def test_the_image_holds_every_package_of_the_project():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    copied = set(re.findall(r"^COPY (\w+) \1$", DOCKERFILE, re.M))
    assert {one.removesuffix("*") for one in packages["include"]} - {"rec"} <= copied
    assert "protos" in copied
