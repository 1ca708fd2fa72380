"""The join on Flink as it is deployed says what the job, the contract and the joiner say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from k8s.checks.build import build, builder
from local.flink_config import OUTPUTS
from services.contract import topics
from services.joiner.settings import Settings

ROOT = Path(__file__).parents[2]
COMPONENT = ROOT / "k8s/components/flink"
FLINK = yaml.safe_load((COMPONENT / "flink-join.yaml").read_text())["spec"]
OPTIONS_SOURCE = (ROOT / "flink/src/main/java/recloop/join/JoinOptions.java").read_text()
VERSION = re.search(r"<flink.version>(.+)</flink.version>", (ROOT / "flink/pom.xml").read_text())[1]


def names(constant: str) -> set[str]:
    """The strings of a Set.of in JoinOptions.java."""
    body = re.search(rf"{constant} = Set\.of\((.+?)\);", OPTIONS_SOURCE, re.S)
    assert body
    return set(re.findall(r'"([a-z-]+)"', body[1]))


def options() -> dict[str, str]:
    arguments = FLINK["job"]["args"]
    assert all(name.startswith("--") for name in arguments[::2])
    return {name[2:]: value for name, value in zip(arguments[::2], arguments[1::2], strict=True)}


def default(option: str) -> str:
    """What the job takes when it is not told, as its --help says it."""
    said = re.search(rf"--{option} (\S+)", OPTIONS_SOURCE)
    assert said, option
    return said[1]


def test_the_arguments_are_options_of_the_job_and_topics_of_the_contract():
    assert set(options()) <= names("NAMES")
    known = {topic.name for topic in topics.ALL}
    for option in ("samples", "late-events", "dead-letters"):
        assert options()[option] in known
    for topic in (topics.FEATURE_SNAPSHOTS, topics.IMPRESSIONS, topics.ACTIONS):
        assert f'"{topic.name}"' in OPTIONS_SOURCE


def test_it_joins_by_the_joiners_windows_with_one_task_per_partition():
    joiner = Settings.model_fields
    for option, field in (("window-ms", "window_ms"), ("bound-ms", "bound_ms")):
        assert int(options()[option]) == int(default(option)) == joiner[field].default
    tasks = FLINK["job"]["parallelism"]
    assert tasks == int(options()["parallelism"]) == topics.EVENT_PARTITIONS


def test_the_launchers_names_of_its_outputs_are_the_jobs_defaults():
    samples, late, dead = (topic.name for topic in OUTPUTS)
    assert (default("samples"), default("late-events"), default("dead-letters")) == (samples, late, dead)


def test_image_and_versions_are_those_of_the_build():
    dockerfile = (ROOT / "flink/Dockerfile").read_text()
    assert f"FROM flink:{VERSION}-" in dockerfile
    jar = FLINK["job"]["jarURI"].removeprefix("local://")
    assert jar in dockerfile
    assert f"v{'_'.join(VERSION.split('.')[:2])}" == FLINK["flinkVersion"]
    assert re.fullmatch(r"recloop-flink:\d+\.\d+\.\d+", FLINK["image"])


def test_it_recovers_from_what_outlives_its_pods():
    configuration = FLINK["flinkConfiguration"]
    assert FLINK["job"]["upgradeMode"] == "last-state"
    assert configuration["high-availability.type"] == "kubernetes"
    pod = FLINK["podTemplate"]["spec"]
    mounted = pod["containers"][0]["volumeMounts"][0]["mountPath"]
    for setting in ("high-availability.storageDir", "execution.checkpointing.dir"):
        assert configuration[setting].startswith(f"file://{mounted}/")
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "flink-state"


def test_a_transaction_outlives_every_try_at_a_checkpoint():
    configuration = FLINK["flinkConfiguration"]
    tries = int(configuration["execution.checkpointing.tolerable-failed-checkpoints"]) + 1
    each_s = int(configuration["execution.checkpointing.timeout"].removesuffix(" s"))
    assert tries * each_s * 1000 < int(options()["transaction-timeout-ms"])


def test_its_pods_are_restricted_and_limited():
    pod = FLINK["podTemplate"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    container = pod["containers"][0]
    assert container["name"] == "flink-main-container"
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert FLINK["jobManager"]["resource"]["memory"] and FLINK["taskManager"]["resource"]["memory"]


@pytest.mark.skipif(builder() is None, reason="neither kubectl nor kustomize is on the PATH")
def test_the_overlay_puts_flink_in_the_joiners_place():
    objects = build("flink")
    assert objects.named("Deployment", "joiner")["spec"]["replicas"] == 0
    assert objects.of("ScaledObject") == []
    settings = next(
        one["data"]
        for one in objects.of("ConfigMap")
        if one["metadata"]["name"].startswith("recloop-settings-")
    )
    deployed = objects.named("FlinkDeployment", "flink-join")
    assert deployed["spec"]["job"]["args"][:2] == ["--bootstrap", settings["KAFKA_BOOTSTRAP_SERVERS"]]
    assert objects.named("ServiceAccount", deployed["spec"]["serviceAccount"]) is not None
