"""What the code says of each process that a pod may run: its settings, and what follows from them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from k8s.checks.objects import Objects, Pod
from loadgen.settings import SeedSettings, SimulateSettings
from services.collector.settings import CollectorSettings
from services.contract import feature_events, topics
from services.feature.settings import FeatureSettings
from services.feature_pipeline.settings import FeaturePipelineSettings
from services.gateway.settings import GatewaySettings
from services.joiner.settings import Settings as JoinerSettings
from services.lake.commands import CommandSettings as LakeCommandSettings
from services.lake.settings import Settings as LakeSettings
from services.page.settings import Settings as PageSettings
from services.ranking.settings import Settings as RankingSettings
from services.recall.settings import RecallSettings
from services.release.settings import Settings as ReleaseSettings
from services.runtime.settings import ENV_PREFIX, ProcessSettings
from trainer.batch_settings import BatchSettings
from trainer.settings import OnlineSettings

# Read by every process beside what begins with the prefix (services.runtime.settings).
CUSTOMARY = ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", topics.PARTITIONS_VARIABLE)


@dataclass(frozen=True)
class Program:
    """``python -m`` these words. ``settings``: what it reads; None = only the customary names.

    ``redis``, ``kafka``: whether it connects to them. ``calls``: the settings that name a service which it
    calls under the settings that it has here. ``shares``: the groups by which its replicas share partitions
    out, with the topics of each; its replicas beyond the partitions idle. ``single``: a second replica would
    fence the first."""

    words: tuple[str, ...]
    settings: type[ProcessSettings] | None
    kafka: bool = True
    redis: bool = False
    calls: tuple[str, ...] = ()
    shares: Mapping[str, tuple[topics.Topic, ...]] | None = None
    # Groups that commit in Kafka, so that their lag can be told from outside.
    lag_known: bool = True
    single: bool = False
    stores: tuple[str, ...] = ()


JOINED = (topics.FEATURE_SNAPSHOTS, topics.IMPRESSIONS, topics.ACTIONS)
EVERYTHING = (*JOINED, topics.SAMPLES, topics.CATALOG)
PROGRAMS = (
    Program(
        ("services.gateway",), GatewaySettings, calls=("recall_target", "feature_target", "ranking_target")
    ),
    Program(("services.recall",), RecallSettings, redis=True, stores=("model_store_uri",)),
    Program(("services.feature",), FeatureSettings, redis=True),
    Program(("services.ranking",), RankingSettings, stores=("model_store_uri",)),
    Program(("services.collector",), CollectorSettings),
    Program(("services.joiner",), JoinerSettings, shares={"joiner": JOINED}),
    Program(
        ("services.feature_pipeline",),
        FeaturePipelineSettings,
        redis=True,
        shares={
            feature_events.SPLIT_GROUP: (topics.IMPRESSIONS, topics.ACTIONS, topics.CATALOG),
            feature_events.FOLD_GROUP: (topics.FEATURE_EVENTS,),
        },
    ),
    Program(("services.release",), ReleaseSettings, single=True, stores=("model_store_uri",)),
    Program(
        ("trainer", "online"),
        OnlineSettings,
        single=True,
        calls=("release_target",),
        stores=("model_store_uri",),
    ),
    Program(
        ("trainer", "batch"),
        BatchSettings,
        kafka=False,
        calls=("release_target",),
        stores=("model_store_uri", "lake_uri"),
    ),
    Program(
        ("services.lake",), LakeSettings, shares={"lake": EVERYTHING}, lag_known=False, stores=("lake_uri",)
    ),
    Program(("services.lake", "compact"), LakeCommandSettings, kafka=False, stores=("lake_uri",)),
    Program(
        ("loadgen", "seed"),
        SeedSettings,
        redis=True,
        calls=("release_target",),
        stores=("model_store_uri",),
    ),
    Program(
        ("loadgen", "simulate"),
        SimulateSettings,
        calls=("gateway_target", "collector_target", "ranking_target"),
    ),
    Program(
        ("services.page",),
        PageSettings,
        kafka=False,
        calls=(
            *("gateway_target", "feature_target", "release_target"),
            *("joiner_target", "feature_pipeline_target", "trainer_target"),
        ),
    ),
    Program(("local.topic_setup",), None),
)


class Unreadable(Exception):
    """What a process would say at its start instead of starting."""


def arguments(pod: Pod) -> list[str]:
    """The words behind ``python -m``, also where a shell fills in a date."""
    command: list[str] = pod.container["command"]
    if command[:2] == ["sh", "-c"]:
        command = (
            command[2].removeprefix("exec ").replace('"$(date -u -d yesterday +%F)"', "2026-03-01").split()
        )
    if command[:2] != ["python", "-m"]:
        raise Unreadable(f"command {' '.join(command[:3])!r}: python -m MODULE expected")
    return command[2:]


def program(pod: Pod) -> Program:
    """The program that a pod of ours runs; Unreadable when it is none of the loop's."""
    words = arguments(pod)
    fitting = [one for one in PROGRAMS if tuple(words[: len(one.words)]) == one.words]
    if not fitting:
        raise Unreadable(f"python -m {' '.join(words[:2])}: no program of the loop")
    return max(fitting, key=lambda one: len(one.words))


def environment(objects: Objects, pod: Pod) -> dict[str, str]:
    """What a pod's process finds in its environment. Unreadable names a ConfigMap that is not there."""
    found: dict[str, str] = {}
    for source in pod.container.get("envFrom", ()):
        name = source["configMapRef"]["name"]
        config = objects.named("ConfigMap", name)
        if config is None:
            raise Unreadable(f"ConfigMap {name} does not exist")
        found |= config["data"]
    for entry in pod.container.get("env", ()):
        found[entry["name"]] = entry["value"] if "value" in entry else _derived(pod, entry["valueFrom"])
    return found


def _derived(pod: Pod, source: Mapping[str, Mapping[str, str]]) -> str:
    if source.get("fieldRef", {}).get("fieldPath") == "metadata.labels['app.kubernetes.io/component']":
        return pod.component
    if source.get("resourceFieldRef", {}).get("resource") != "limits.cpu":
        raise Unreadable(f"{source}: only limits.cpu and the component's name are taken from the pod")
    cpu = str(pod.container.get("resources", {}).get("limits", {}).get("cpu", ""))
    if not cpu:
        raise Unreadable("no CPU limit, and its threads are set from it: the node's cores would be taken")
    # Rounded up, as Kubernetes does.
    return str(-(-int(cpu[:-1]) // 1000) if cpu.endswith("m") else -(-float(cpu) // 1)).removesuffix(".0")


def settings(objects: Objects, pod: Pod) -> ProcessSettings | None:
    """The settings that the process would run with; Unreadable names each field that it would refuse."""
    found, of = environment(objects, pod), program(pod)
    if of.settings is None:
        return None
    return _parsed(of.settings, tuple(arguments(pod)[len(of.words) :]), frozenset(found.items()))


def readable(objects: Objects, pod: Pod) -> Any:
    """As ``settings``; None also where that has something to refuse (pods.settings says what)."""
    try:
        return settings(objects, pod)
    except Unreadable:
        return None


@cache
def _parsed(
    of: type[ProcessSettings], options: tuple[str, ...], found: frozenset[tuple[str, str]]
) -> ProcessSettings:
    try:
        with _environ(dict(found)):
            return of(_cli_parse_args=list(options))  # type: ignore[call-arg]
    except ValidationError as error:
        fields = (
            ".".join(map(str, bad["loc"])) + f" = {bad['input']!r}: {bad['msg']}" for bad in error.errors()
        )
        raise Unreadable("; ".join(fields)) from None
    except SettingsError as error:
        raise Unreadable(str(error)) from None


@contextmanager
def _environ(values: Mapping[str, str]) -> Iterator[None]:
    kept = dict(os.environ)
    os.environ.clear()
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def names(of: type[BaseModel], prefix: str = ENV_PREFIX) -> Iterator[str]:
    """The environment variables that a process reads."""
    for name, field in of.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from names(inner, f"{prefix}{name.upper()}__")
        yield f"{prefix}{name.upper()}"
