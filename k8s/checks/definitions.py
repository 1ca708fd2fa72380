"""Schemas of the operators' own kinds, fetched where their projects publish them, kept in the user's cache.

| kinds | from |
|---|---|
| Strimzi | Maven Central: Strimzi's own generator makes the definitions from the classes of its API |
| Flink | Maven Central: in the jar of the operator's API |
| KEDA, Prometheus' operator, cert-manager | Go modules, in whose source the definitions stand |

Jars are accepted by SHA-256 (kafka_jars.py), Go modules by Go's checksum database.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import yaml

from k8s.checks.build import LOADER
from k8s.checks.objects import Object
from k8s.checks.schemas import strict
from local import java, kafka_jars
from local.paths import cache_dir

STRIMZI, FLINK = "1.2.0", "1.10.0"
KEDA, PROMETHEUS, CERT_MANAGER = "v2.21.0", "v0.85.0", "v1.21.2"
GENERATOR = kafka_jars.Pin(
    "io.strimzi", "crd-generator", STRIMZI, "76bb2430e702a1e6a24c071d26c865d5e9572cbc630d176d3b912033ae23ed00"
)
API = kafka_jars.Pin(
    "io.strimzi", "api", STRIMZI, "566961ae5e5646a001ae91312beda5cba3a5d467e740e205e1b761754335fe4e"
)
FLINK_API = kafka_jars.Pin(
    "org.apache.flink",
    "flink-kubernetes-operator-api",
    FLINK,
    "b1f44814e17514fa8395c61b329a3ee9087123a5bda5b21fe1a495d5182c30b6",
)
STRIMZI_KINDS = {
    "Kafka": "kafka.Kafka",
    "KafkaNodePool": "nodepool.KafkaNodePool",
    "KafkaTopic": "topic.KafkaTopic",
    "KafkaUser": "user.KafkaUser",
}
# Go module -> where in it which definitions stand.
MODULES = {
    f"github.com/kedacore/keda/v2@{KEDA}": (
        "config/crd/bases",
        ("keda.sh_scaledobjects", "keda.sh_triggerauthentications"),
    ),
    f"github.com/prometheus-operator/prometheus-operator@{PROMETHEUS}": (
        "example/prometheus-operator-crd",
        ("monitoring.coreos.com_podmonitors", "monitoring.coreos.com_prometheusrules"),
    ),
    f"github.com/cert-manager/cert-manager@{CERT_MANAGER}": (
        "deploy/crds",
        ("cert-manager.io_certificates", "cert-manager.io_issuers"),
    ),
}
# This API of the operator, the newest that could be fetched, is older than the operator that the manifests
# need: it does not know Flink 2.2 by name. (kind, path in the schema): taken out of it.
NEWER = {("FlinkDeployment", ("properties", "spec", "properties", "flinkVersion", "enum"))}
TIMEOUT_S = 300
Say = Callable[[str], None]


class FetchFailed(Exception):
    """One line: what is missing, what it is for, how to mend it."""


def definitions(say: Say) -> list[Object]:
    """The CustomResourceDefinitions; fetched once. Raises FetchFailed."""
    # Of what it is made of: another version is another folder.
    made_of = repr((GENERATOR, API, FLINK_API, sorted(STRIMZI_KINDS), sorted(MODULES.items())))
    folder = cache_dir() / f"k8s-definitions-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as staging:
            made = Path(staging) / "made"
            made.mkdir()
            _fetch(made, Path(staging), say)
            # Whole or not at all.
            made.rename(folder)
    return [_read(path) for path in sorted(folder.glob("*.yaml"))]


def _read(path: Path) -> Object:
    definition: Object = yaml.load(path.read_text(), Loader=LOADER)
    for kind, where in NEWER:
        if kind == definition["spec"]["names"]["kind"]:
            for version in definition["spec"]["versions"]:
                _drop(version["schema"]["openAPIV3Schema"], where)
    return definition


def schemas(say: Say) -> dict[tuple[str, str], Object]:
    """What the definitions allow, by (apiVersion, kind). Raises FetchFailed."""
    found = {}
    for definition in definitions(say):
        spec = definition["spec"]
        for version in spec["versions"]:
            if version["served"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                # The server's own, which a definition leaves out.
                schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def _drop(schema: Object, where: tuple[str, ...]) -> None:
    *parents, last = where
    for key in parents:
        schema = schema[key]
    del schema[last]


def _fetch(made: Path, scratch: Path, say: Say) -> None:
    for name, (folder, names) in MODULES.items():
        say(f"fetching {name}")
        source = module(name) / folder
        for kind in names:
            shutil.copy(source / f"{kind}.yaml", made / f"{kind}.yaml")
    say(f"fetching Strimzi {STRIMZI} and Flink's operator {FLINK} from Maven Central")
    _strimzi(made, _jar(GENERATOR, scratch), _jar(API, scratch))
    with zipfile.ZipFile(_jar(FLINK_API, scratch)) as archive:
        name = "flinkdeployments.flink.apache.org-v1.yml"
        (made / "flinkdeployments.yaml").write_bytes(archive.read(f"META-INF/fabric8/{name}"))


def module(name: str) -> Path:
    """The folder of a Go module's source (path@version). Raises FetchFailed."""
    go = shutil.which("go")
    if go is None:
        raise FetchFailed(
            f"go: needed to fetch the definitions in {name}, not on the PATH. Mend it by installing Go, or "
            "leave the operators' kinds out: make k8s-validate ARGS=--own-kinds-only"
        )
    with tempfile.TemporaryDirectory() as outside_of_modules:
        done = subprocess.run(
            [go, "mod", "download", "-json", name],
            cwd=outside_of_modules, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    answer = json.loads(done.stdout or "{}")
    if done.returncode != 0:
        raise FetchFailed(f"{name}: {answer.get('Error') or done.stderr.strip()}")
    return Path(answer["Dir"])


def build_program(source: str, package: str, target: Path, timeout_s: float, *flags: str) -> None:
    """Builds the program of a package of a Go module (path@version) as ``target``, whole or not at all.
    Raises FetchFailed."""
    folder = module(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as staging:
        made = Path(staging) / target.name
        try:
            done = subprocess.run(
                ["go", "build", *flags, "-o", str(made), package],
                cwd=folder, env={**os.environ, "GOWORK": "off"},
                capture_output=True, text=True, timeout=timeout_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise FetchFailed(f"{package} of {source}: not built within {timeout_s:.0f} s") from error
        if done.returncode:
            raise FetchFailed(f"{package} of {source}: {done.stderr.strip()[-500:]}")
        made.rename(target)


def _jar(pin: kafka_jars.Pin, scratch: Path) -> Path:
    try:
        path = kafka_jars.download(pin, scratch / pin.artifact)
    except Exception as error:  # the resolver raises many kinds
        raise FetchFailed(f"{pin.group}:{pin.artifact}:{pin.version}: {error}") from error
    if (found := kafka_jars.sha256_of(path)) != pin.sha256:
        raise FetchFailed(f"{pin.file_name}: SHA-256 {found} is not the pinned {pin.sha256}")
    return path


def _strimzi(made: Path, generator: Path, api: Path) -> None:
    kinds = [
        f"io.strimzi.api.kafka.model.{path}={made / f'strimzi-{kind}.yaml'}"
        for kind, path in STRIMZI_KINDS.items()
    ]
    command = [
        str(java.java()),
        "-cp",
        f"{generator}:{api}",
        "io.strimzi.crdgenerator.CrdGenerator",
        "--yaml",
    ]
    done = subprocess.run(
        [*command, "--crd-api-version", "v1", "--api-versions", "v1", "--target-kube", "1.30+", *kinds],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise FetchFailed(f"Strimzi's generator: {(done.stderr or done.stdout).strip()[-500:]}")
