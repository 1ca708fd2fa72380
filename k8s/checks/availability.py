"""What stays up when pods come and go: budgets, spreading, draining, scaling, and what runs by the clock."""

from __future__ import annotations

from collections.abc import Iterator

from k8s.checks import code
from k8s.checks.objects import Object, Objects, Pod, label, selects

DAY_S = 86_400


def budgets(objects: Objects) -> Iterator[str]:
    """Each process that serves has one disruption budget, which lets a node be drained."""
    for pod in objects.pods():
        if not pod.serves:
            continue
        own = [
            one for one in objects.of("PodDisruptionBudget") if selects(one["spec"]["selector"], pod.labels)
        ]
        if len(own) != 1:
            yield f"{pod.owner}: {len(own)} PodDisruptionBudgets, 1 is wanted"
        yield from [
            f"{label(one)}: maxUnavailable is not 1" for one in own if one["spec"].get("maxUnavailable") != 1
        ]


def spread(objects: Objects) -> Iterator[str]:
    """Replicas are spread over zones and nodes."""
    for pod in objects.our_pods():
        if pod.serves:
            keys = {one["topologyKey"] for one in pod.spec.get("topologySpreadConstraints", ())}
            if not {"topology.kubernetes.io/zone", "kubernetes.io/hostname"} <= keys:
                yield f"{pod.owner}: not spread over zones and nodes"


def draining(objects: Objects) -> Iterator[str]:
    """preStop and the whole shutdown fit into the grace, the drain into the shutdown."""
    for pod in objects.our_pods():
        settings = code.readable(objects, pod)
        if not pod.serves or settings is None:
            continue
        sleep_s = pod.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        grace_s = pod.spec.get("terminationGracePeriodSeconds", 30)
        if sleep_s < 1:
            yield f"{pod.owner}: no preStop pause, so calls are sent to a pod that ends"
        if grace_s * 1000 <= sleep_s * 1000 + settings.shutdown_ms:
            yield f"{pod.owner}: grace {grace_s} s, preStop {sleep_s} s + shutdown {settings.shutdown_ms} ms"
        if settings.shutdown_ms <= settings.grpc.drain_ms + settings.grpc.lame_duck_ms:
            yield f"{pod.owner}: shutdown_ms {settings.shutdown_ms} leaves nothing behind the drain"


def scaling(objects: Objects) -> Iterator[str]:
    """Whatever scales scales something, alone, and never beyond what the code can use."""
    by_owner = {pod.owner: pod for pod in objects.our_pods()}
    scaled: dict[str, str] = {}
    for scaler in objects.of("HorizontalPodAutoscaler", "ScaledObject"):
        target = f"Deployment/{scaler['spec']['scaleTargetRef']['name']}"
        if target not in by_owner:
            yield f"{label(scaler)}: {target} does not exist"
            continue
        if target in scaled:
            yield f"{label(scaler)}: {scaled[target]} scales {target} already"
        scaled[target] = label(scaler)
        if "replicas" in by_owner[target].made_by["spec"]:
            yield f"{target}: replicas, and {label(scaler)}: every apply would undo the scaler"
    for owner, pod in by_owner.items():
        if pod.serves:
            yield from _replicas(objects, owner, pod, scaled.get(owner))
    for scaler in objects.of("ScaledObject"):
        scales = by_owner.get(f"Deployment/{scaler['spec']['scaleTargetRef']['name']}")
        if scales is not None:
            yield from _lag(scaler, scales)


def _replicas(objects: Objects, owner: str, pod: Pod, scaler: str | None) -> Iterator[str]:
    try:
        program = code.program(pod)
    except code.Unreadable:
        return
    most = _most(objects, pod, scaler)
    if program.single and most > 1:
        yield f"{owner}: up to {most} replicas, a second would fence the first"
    if program.single and pod.made_by["spec"].get("strategy", {}).get("type") != "Recreate":
        yield f"{owner}: not Recreate, so an update would run two"
    if program.shares:
        partitions = max(topic.partitions for shared in program.shares.values() for topic in shared)
        if most > partitions:
            yield f"{owner}: up to {most} replicas, its topics have {partitions} partitions"


def _most(objects: Objects, pod: Pod, scaler: str | None) -> int:
    if scaler is None:
        return int(pod.made_by["spec"].get("replicas", 1))
    found = objects.named(*scaler.split("/"))
    assert found is not None  # it was found by its name
    # KEDA's default.
    return int(found["spec"].get("maxReplicas") or found["spec"].get("maxReplicaCount") or 100)


def _lag(scaler: Object, pod: Pod) -> Iterator[str]:
    program = code.program(pod)
    if not program.shares or not program.lag_known:
        yield f"{label(scaler)}: {pod.owner} commits no offsets that its lag could be told by"
        return
    known = {(group, topic.name) for group, shared in program.shares.items() for topic in shared}
    asked = [
        (one["metadata"].get("consumerGroup"), one["metadata"].get("topic"))
        for one in scaler["spec"]["triggers"]
        if one["type"] == "kafka"
    ]
    for group, topic in asked:
        if (group, topic) not in known:
            yield f"{label(scaler)}: {pod.owner} reads no topic {topic} as group {group}"


def clocked(objects: Objects) -> Iterator[str]:
    """One run at a time, each with an end; what means "yesterday" ends on the day it began."""
    for one in objects.of("CronJob"):
        spec, job = one["spec"], one["spec"]["jobTemplate"]["spec"]
        name = label(one)
        if spec.get("concurrencyPolicy") != "Forbid":
            yield f"{name}: concurrencyPolicy is not Forbid"
        if spec.get("timeZone") != "Etc/UTC":
            yield f"{name}: timeZone is not Etc/UTC, in which days are counted"
        missing = [
            field
            for field, there in (
                ("startingDeadlineSeconds", spec),
                ("activeDeadlineSeconds", job),
                ("backoffLimit", job),
            )
            if field not in there
        ]
        yield from [f"{name}: no {field}" for field in missing]
        if not missing and _last_second(spec, job) >= DAY_S:
            yield f"{name}: a run may end on the day after, when yesterday is another day"
    for one in objects.of("Job"):
        for field in ("activeDeadlineSeconds", "backoffLimit"):
            if field not in one["spec"]:
                yield f"{label(one)}: no {field}"


def _last_second(spec: Object, job: Object) -> int:
    """Of the day, at which the latest run ends; the schedule is one time a day."""
    minute, hour, *rest = spec["schedule"].split()
    if rest != ["*", "*", "*"]:
        raise ValueError(f"schedule {spec['schedule']!r}: once a day is expected")
    start: int = int(hour) * 3600 + int(minute) * 60
    return start + int(spec["startingDeadlineSeconds"]) + int(job["activeDeadlineSeconds"])


RULES = (budgets, spread, draining, scaling, clocked)
