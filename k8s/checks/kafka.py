"""Kafka's objects are what services/contract/topics.py says, on a cluster that can hold them."""

from __future__ import annotations

from collections.abc import Iterator

from k8s import kafka_objects
from k8s.checks.objects import Objects, label
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
        said = kafka_objects.topic(topic)["spec"]
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


RULES = (topic_objects, cluster)
