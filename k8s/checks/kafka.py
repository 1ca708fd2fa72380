"""Kafka's objects are what services/contract/topics.py says, on a cluster that can hold them."""

from __future__ import annotations

from collections.abc import Iterator

from k8s import written
from k8s.checks import code, pods
from k8s.checks.objects import Object, Objects, label
from services.contract import topics


def topic_objects(objects: Objects) -> Iterator[str]:
    """Every topic, with its partitions and settings, or a Job that creates them."""
    if not objects.of("Kafka"):
        if objects.named("Job", "topics") is None:
            yield "no Kafka, and no Job that creates the topics"
        return
    here = {one["metadata"]["name"]: one["spec"] for one in objects.of("KafkaTopic")}
    for topic in topics.ALL:
        spec = here.pop(topic.name, None)
        if spec is None:
            yield f"KafkaTopic/{topic.name}: missing"
            continue
        said = written.topic(topic)["spec"]
        yield from [
            f"KafkaTopic/{topic.name}: {name} {spec.get(name)}, the code says {said[name]}"
            for name in ("partitions", "config")
            if spec.get(name) != said[name]
        ]
    yield from (f"KafkaTopic/{name}: the code has no such topic" for name in here)


def cluster(objects: Objects) -> Iterator[str]:
    """Replicas fit on the nodes; a node may be away without anything standing still; records fit."""
    nodes = sum(pool["spec"]["replicas"] for pool in objects.of("KafkaNodePool"))
    for kafka in objects.of("Kafka"):
        config = kafka["spec"]["kafka"]["config"]
        for name in (
            "default.replication.factor",
            "offsets.topic.replication.factor",
            "transaction.state.log.replication.factor",
        ):
            if config.get(name) != min(3, nodes):
                yield f"{label(kafka)}: {name} {config.get(name)}, on {nodes} nodes {min(3, nodes)} is wanted"
        for name in ("min.insync.replicas", "transaction.state.log.min.isr"):
            if config.get(name) != (2 if nodes > 2 else 1):
                yield f"{label(kafka)}: {name} {config.get(name)} on {nodes} nodes"
        if config.get("auto.create.topics.enable") is not False:
            yield f"{label(kafka)}: topics must not come by themselves"
        if config.get("message.max.bytes", 1_048_576) < topics.MAX_RECORD_BYTES:
            yield f"{label(kafka)}: message.max.bytes is below the largest record, {topics.MAX_RECORD_BYTES}"
        yield from [
            f"{label(one)}: {one['spec']['replicas']} replicas on {nodes} nodes"
            for one in objects.of("KafkaTopic")
            if one["spec"]["replicas"] != min(3, nodes)
        ]


def logins(objects: Objects) -> Iterator[str]:
    """Where Kafka asks who is there: each pod logs in as its own user, who may do what the code says."""
    if not any("authorization" in one["spec"]["kafka"] for one in objects.of("Kafka")):
        return
    for kafka in objects.of("Kafka"):
        for listener in kafka["spec"]["kafka"]["listeners"]:
            if not listener["tls"] or listener.get("authentication", {}).get("type") != "scram-sha-512":
                yield f"{label(kafka)}: listener {listener['name']} takes whoever comes"
    yield from _users(objects)
    for pod in objects.our_pods():
        settings = code.readable(objects, pod)
        if settings is None or not code.program(pod).kafka:
            continue
        name = settings.kafka.username
        if name != pod.component or objects.named("KafkaUser", name) is None:
            yield f"{pod.owner}: logs in to Kafka as {name!r}, {pod.component!r} is its user"
        held = pods.secrets_at(pod, settings.kafka.password_file)
        if held != [name]:
            yield f"{pod.owner}: Kafka's password is of secret {held}, {name!r} is its own"


def _users(objects: Objects) -> Iterator[str]:
    here = {one["metadata"]["name"]: one["spec"] for one in objects.of("KafkaUser")}
    for name in (*written.IDENTITIES, written.KEDA):
        spec = here.pop(name, None)
        if spec is None:
            yield f"KafkaUser/{name}: missing"
            continue
        said = written.user(name)["spec"]["authorization"]["acls"]
        has = spec["authorization"]["acls"]
        yield from (f"KafkaUser/{name}: lacks {_words(acl)}" for acl in said if acl not in has)
        yield from (
            f"KafkaUser/{name}: the code does not allow {_words(acl)}" for acl in has if acl not in said
        )
    yield from (f"KafkaUser/{name}: the code has no such user" for name in here)


def _words(acl: Object) -> str:
    resource = acl["resource"]
    return f"{', '.join(acl['operations'])} of {resource['type']} {resource['name']}"


RULES = (topic_objects, cluster, logins)
