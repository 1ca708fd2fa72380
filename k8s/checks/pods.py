"""Each pod on its own: probes, limits, rights, image, and the settings that its process would find."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from k8s import written
from k8s.checks import code
from k8s.checks.objects import Object, Objects, Pod
from local import processes
from services.runtime.grpc_health import LIVENESS

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
EXACT_TAG = re.compile(r".+(:[^:/]*\d[^:/]*|@sha256:[0-9a-f]{64})")


def whole(objects: Objects) -> Iterator[str]:
    """Every process of the loop is there, and the lake, which the daily model is trained on."""
    commands = [tuple(pod.container["command"][2:]) for pod in objects.our_pods() if pod.serves]
    for spec in processes.SPECS:
        if (spec.in_loop or spec.name == "lake") and spec.module not in commands:
            yield f"no Deployment runs python -m {' '.join(spec.module)}"


def probes(objects: Objects) -> Iterator[str]:
    """A process that serves has all three, native gRPC on its admin port; liveness asks for the event loop
    alone, and is the slowest to act."""
    for pod in objects.pods():
        if not pod.serves:
            continue
        for name in PROBES:
            probe = pod.container.get(name)
            if probe is None:
                yield f"{pod.owner}: no {name}"
            elif pod.ours:
                yield from [
                    f"{pod.owner}: {name}: {text}" for text in _wrong_probe(objects, pod, name, probe)
                ]


def _wrong_probe(objects: Objects, pod: Pod, name: str, probe: Object) -> Iterator[str]:
    settings = code.readable(objects, pod)
    asked = probe.get("grpc")
    if asked is None:
        yield "not by gRPC"
        return
    service = LIVENESS if name == "livenessProbe" else ""
    if asked.get("service", "") != service:
        yield f"asks for {asked.get('service', '')!r}, not {service!r}"
    if settings is None:
        return
    if asked["port"] != settings.grpc.admin_or_default():
        yield f"port {asked['port']}, the admin port is {settings.grpc.admin_or_default()}"
    patience_ms = 1000 * probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
    if name == "livenessProbe" and patience_ms <= settings.grpc.loop_stall_ms:
        yield f"gives up after {patience_ms} ms, a loop may stall {settings.grpc.loop_stall_ms}"


def limits(objects: Objects) -> Iterator[str]:
    """Requests and limits of CPU and memory."""
    for pod in objects.pods():
        for container in pod.spec["containers"]:
            resources = container.get("resources", {})
            yield from [
                f"{pod.owner}: no {kind[:-1]} of {what}"
                for kind in ("requests", "limits")
                for what in ("cpu", "memory")
                if what not in resources.get(kind, {})
            ]


def rights(objects: Objects) -> Iterator[str]:
    """The pod security standard `restricted`, and a root file system that nobody can write to."""
    for pod in objects.pods():
        whole = pod.spec.get("securityContext", {})
        wanted = {
            "runAsNonRoot": whole.get("runAsNonRoot") is True,
            "seccompProfile": whole.get("seccompProfile", {}).get("type") == "RuntimeDefault",
            "automountServiceAccountToken": pod.spec.get("automountServiceAccountToken") is False,
        }
        for container in pod.spec["containers"]:
            own = container.get("securityContext", {})
            wanted |= {
                "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
                "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
                "capabilities.drop": own.get("capabilities", {}).get("drop") == ["ALL"],
            }
        yield from [f"{pod.owner}: {name} is not restricted" for name, good in wanted.items() if not good]


def images(objects: Objects) -> Iterator[str]:
    """Exact tags or digests; our own is this version."""
    for pod in objects.pods():
        image = pod.container.get("image", "")
        if not EXACT_TAG.fullmatch(image):
            yield f"{pod.owner}: image {image!r}: an exact tag or a digest is wanted"
        elif pod.ours and not image.endswith(f"recloop:{PROJECT['version']}"):
            yield f"{pod.owner}: image {image!r}, this is {PROJECT['version']}"


def settings(objects: Objects) -> Iterator[str]:
    """Every process starts with what it is told, and every variable is one that somebody reads."""
    read = set(code.CUSTOMARY)
    for pod in objects.our_pods():
        try:
            code.settings(objects, pod)
            of = code.program(pod).settings
        except code.Unreadable as error:
            yield f"{pod.owner}: {error}"
            continue
        own = set(code.names(of)) if of else set()
        read |= own
        yield from [
            f"{pod.owner}: {entry['name']}: not a setting of it"
            for entry in pod.container.get("env", ())
            if "value" in entry and entry["name"].startswith("RECLOOP_") and entry["name"] not in own
        ]
    for config in objects.of("ConfigMap"):
        if config["metadata"]["name"].startswith("recloop-settings"):
            yield from [
                f"ConfigMap: {name}: no process has this setting"
                for name in config["data"]
                if name not in read
            ]


def stores(objects: Objects) -> Iterator[str]:
    """A folder that a process keeps something in is a volume of its pod."""
    for pod in objects.our_pods():
        settings = code.readable(objects, pod)
        if settings is None:
            continue
        mounts = [mount["mountPath"] for mount in pod.container.get("volumeMounts", ())]
        for name in code.program(pod).stores:
            uri = getattr(settings, name)
            if "://" not in uri and not any(uri == path or uri.startswith(f"{path}/") for path in mounts):
                yield f"{pod.owner}: {name} {uri} is in none of its volumes"


def references(objects: Objects) -> Iterator[str]:
    """Volumes, claims and service accounts that are named exist."""
    for pod in objects.pods():
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", ())}
        claimed = {one["metadata"]["name"] for one in pod.made_by["spec"].get("volumeClaimTemplates", ())}
        for mount in pod.container.get("volumeMounts", ()):
            if mount["name"] not in {*volumes, *claimed}:
                yield f"{pod.owner}: no volume {mount['name']}"
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and objects.named("PersistentVolumeClaim", claim) is None:
                yield f"{pod.owner}: no claim {claim}"
        account = pod.spec.get("serviceAccountName")
        if account and objects.named("ServiceAccount", account) is None:
            yield f"{pod.owner}: no service account {account}"


def certificates(objects: Objects) -> Iterator[str]:
    """Where services speak TLS: each pod has the certificate of its own identity, with its Service's name."""
    for pod in objects.our_pods():
        settings = code.readable(objects, pod)
        if settings is None or not settings.tls.on:
            continue
        issued = objects.named("Certificate", pod.component)
        if issued is None:
            yield f"{pod.owner}: no Certificate {pod.component}"
            continue
        if issued["spec"] != written.certificate(pod.component)["spec"]:
            yield f"Certificate/{pod.component}: not what the code gives"
        for path in (settings.tls.certificate_file, settings.tls.key_file, settings.tls.ca_file):
            if secrets_at(pod, path) != [issued["spec"]["secretName"]]:
                yield f"{pod.owner}: {path} is not of secret {issued['spec']['secretName']}"


def secrets_at(pod: Pod, path: str) -> list[str]:
    """The secrets of which a file may be one."""
    folder, _, file = path.rpartition("/")
    mounted = {mount["mountPath"]: mount["name"] for mount in pod.container.get("volumeMounts", ())}
    volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", ())}
    volume = volumes.get(mounted.get(folder, ""), {})
    if "secret" in volume:
        return [volume["secret"]["secretName"]]
    sources = (source["secret"] for source in volume.get("projected", {}).get("sources", ()))
    return [one["name"] for one in sources if file in [item["path"] for item in one["items"]]]


RULES = (whole, probes, limits, rights, images, settings, stores, references, certificates)
