"""Who can reach whom: Services, the addresses in the settings, and network policies that allow exactly what
the code does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from k8s.checks import code
from k8s.checks.objects import Object, Objects, Pod, label, selects

Labels = Mapping[str, str]
KAFKA = {"strimzi.io/cluster": "recloop"}
REDIS = {"app.kubernetes.io/name": "redis"}
# What clients outside the loop call.
DOORS = ("gateway", "collector")


def services(objects: Objects) -> Iterator[str]:
    """Each has pods, is headless, and its ports are ports of theirs; each process that serves has one."""
    pods = [pod for pod in objects.pods() if pod.serves]
    for service in objects.of("Service"):
        behind = [pod for pod in pods if selects({"matchLabels": service["spec"]["selector"]}, pod.labels)]
        if len(behind) != 1:
            yield f"{label(service)}: {len(behind)} kinds of pods behind it, 1 is wanted"
        if service["spec"].get("clusterIP") != "None":
            yield f"{label(service)}: not headless, so a client would stay with one pod"
        for pod in behind:
            ports = {port["name"]: port["containerPort"] for port in pod.container["ports"]}
            yield from [
                f"{label(service)}: port {port['port']} is not the port {port['targetPort']} of {pod.owner}"
                for port in service["spec"]["ports"]
                if ports.get(port["targetPort"]) != port["port"]
            ]
    names = {service["metadata"]["name"] for service in objects.of("Service")}
    yield from (f"{pod.owner}: no Service" for pod in pods if pod.owner.partition("/")[2] not in names)


def ports(objects: Objects) -> Iterator[str]:
    """What a pod declares is what its process listens on, on every address."""
    for pod in objects.our_pods():
        settings = code.readable(objects, pod)
        if not pod.serves or settings is None:
            continue
        grpc = settings.grpc
        listens = {"grpc": grpc.port, "admin": grpc.admin_or_default(), "metrics": grpc.metrics_or_default()}
        declared = {port["name"]: port["containerPort"] for port in pod.container.get("ports", ())}
        if not listens.items() <= declared.items():
            yield f"{pod.owner}: ports {declared}, the process listens on {listens}"
        if grpc.host != "0.0.0.0":
            yield f"{pod.owner}: listens on {grpc.host} only"


def targets(objects: Objects) -> Iterator[str]:
    """Each address that a process calls is a Service here, with its port, looked up by DNS at every pod."""
    for pod, name, target in _calls(objects):
        host, _, port = target.removeprefix("dns:///").rpartition(":")
        service = objects.named("Service", host)
        if service is None or int(port) not in [one["port"] for one in service["spec"]["ports"]]:
            yield f"{pod.owner}: {name} {target} is no Service here"
        elif not target.startswith("dns:///"):
            yield f"{pod.owner}: {name} {target}: without dns:/// one pod would get all calls"


def policies(objects: Objects) -> Iterator[str]:
    """Every pod is closed both ways, and open for what its code does: calls, Kafka, Redis, names, metrics."""
    for pod in objects.our_pods():
        for way in ("Ingress", "Egress"):
            if not any(way in one["spec"]["policyTypes"] for one in _own(objects, pod)):
                yield f"{pod.owner}: no NetworkPolicy for {way}"
        try:
            yield from _stores_reached(objects, pod, code.program(pod))
        except code.Unreadable:
            continue
        if not _leaves(objects, pod, None, 53):
            yield f"{pod.owner}: names cannot be looked up"
        if pod.serves:
            metrics = next(
                port["containerPort"] for port in pod.container["ports"] if port["name"] == "metrics"
            )
            if not _enters(objects, pod, None, metrics):
                yield f"{pod.owner}: metrics port {metrics} is closed"
    yield from _calls_allowed(objects)


def _stores_reached(objects: Objects, pod: Pod, program: code.Program) -> Iterator[str]:
    here_kafka = bool(objects.of("Kafka"))
    here_redis = objects.named("StatefulSet", "redis") is not None
    kafka_port = int(code.environment(objects, pod)["KAFKA_BOOTSTRAP_SERVERS"].rpartition(":")[2])
    for name, wanted, labels, port in (
        ("Kafka", program.kafka, KAFKA if here_kafka else None, kafka_port),
        ("Redis", program.redis, REDIS if here_redis else None, 6379),
    ):
        may = _leaves(objects, pod, labels, port)
        if wanted and not may:
            yield f"{pod.owner}: {name} on port {port} is closed to it"
        if may and not wanted and labels is not None and not _may_by_command(pod, name):
            yield f"{pod.owner}: {name} is open to it, and its code does not use it"


def _may_by_command(pod: Pod, name: str) -> bool:
    """`services.lake backfill-view` and `audit-states` run in the lake's pod."""
    return pod.component == "lake" and name == "Redis"


def _calls_allowed(objects: Objects) -> Iterator[str]:
    serving = {pod.component: pod for pod in objects.our_pods() if pod.serves}
    callers: dict[str, set[str]] = {}
    for pod, name, target in _calls(objects):
        host, _, port = target.removeprefix("dns:///").rpartition(":")
        callee = serving.get(host)
        if callee is None:
            continue
        callers.setdefault(host, set()).add(pod.component)
        if not _leaves(objects, pod, callee.labels, int(port)):
            yield f"{pod.owner}: {name} {target}: no NetworkPolicy lets it out"
        if not _enters(objects, callee, pod.labels, int(port)):
            yield f"{callee.owner}: no NetworkPolicy lets {pod.component} in"
    for name, callee in serving.items():
        port = next(one["containerPort"] for one in callee.container["ports"] if one["name"] == "grpc")
        yield from [
            f"{callee.owner}: {pod.component} is let in, and its code does not call it"
            for pod in objects.our_pods()
            if name not in DOORS
            and pod.component not in callers.get(name, set())
            and pod is not callee
            and _enters(objects, callee, pod.labels, port)
        ]


def _calls(objects: Objects) -> Iterator[tuple[Pod, str, str]]:
    for pod in objects.our_pods():
        settings = code.readable(objects, pod)
        if settings is not None:
            for name in code.program(pod).calls:
                yield pod, name, getattr(settings, name)


def _own(objects: Objects, pod: Pod) -> list[Object]:
    return [one for one in objects.of("NetworkPolicy") if selects(one["spec"]["podSelector"], pod.labels)]


def _leaves(objects: Objects, pod: Pod, to: Labels | None, port: int) -> bool:
    """Whether a policy lets the pod call pods with these labels (None: somebody outside) on a port."""
    rules = [rule for one in _own(objects, pod) for rule in one["spec"].get("egress", ())]
    return any(_port(rule, port) and _peer(rule.get("to"), to) for rule in rules)


def _enters(objects: Objects, pod: Pod, frm: Labels | None, port: int) -> bool:
    rules = [rule for one in _own(objects, pod) for rule in one["spec"].get("ingress", ())]
    return any(_port(rule, port) and _peer(rule.get("from"), frm) for rule in rules)


def _port(rule: Object, port: int) -> bool:
    wanted = rule.get("ports")
    return wanted is None or any(
        one["port"] <= port <= one.get("endPort", one["port"])
        for one in wanted
        if isinstance(one["port"], int)
    )


def _peer(peers: list[Object] | None, labels: Labels | None) -> bool:
    """No peers at all means anybody."""
    if peers is None:
        return True
    if labels is None:
        return any("ipBlock" in peer or "namespaceSelector" in peer for peer in peers)
    return any("podSelector" in peer and selects(peer["podSelector"], labels) for peer in peers)


RULES = (services, ports, targets, policies)
