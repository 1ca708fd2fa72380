"""What an overlay asks for: requests and limits with as few replicas as its scalers allow, and volumes."""

from __future__ import annotations

from dataclasses import dataclass

from k8s.checks.objects import Object, Objects, Pod

UNITS = {
    "m": 1e-3,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "g": 1e9,
}
GIB = 2**30


@dataclass(frozen=True)
class Size:
    """Cores and bytes."""

    requested_cores: float = 0.0
    requested_bytes: float = 0.0
    limit_cores: float = 0.0
    limit_bytes: float = 0.0
    volume_bytes: float = 0.0

    def line(self) -> str:
        """As the command prints it."""
        return (
            f"requests {self.requested_cores:.1f} cores and {self.requested_bytes / GIB:.1f} GiB, limits "
            f"{self.limit_cores:.1f} cores and {self.limit_bytes / GIB:.1f} GiB, volumes of "
            f"{self.volume_bytes / GIB:.0f} GiB"
        )


def quantity(text: str | float) -> float:
    """500m -> 0.5, 2Gi -> 2147483648. ValueError for anything else than a number with a unit or without."""
    text = str(text)
    unit = next((unit for unit in sorted(UNITS, key=len, reverse=True) if text.endswith(unit)), "")
    return float(text.removesuffix(unit)) * UNITS.get(unit, 1.0)


def size(objects: Objects) -> Size:
    """Of what serves: Jobs and what comes by the clock end again."""
    found = [_times(pod.container["resources"], _least(objects, pod)) for pod in objects.pods() if pod.serves]
    found += [
        _times(pool["spec"]["resources"], pool["spec"]["replicas"]) for pool in objects.of("KafkaNodePool")
    ]
    volumes = [claim["spec"] for claim in objects.of("PersistentVolumeClaim")]
    volumes += [
        one["spec"]
        for owner in objects.of("StatefulSet")
        for one in owner["spec"].get("volumeClaimTemplates", ())
    ]
    stored = sum(quantity(spec["resources"]["requests"]["storage"]) for spec in volumes)
    stored += sum(
        quantity(volume["size"]) * pool["spec"]["replicas"]
        for pool in objects.of("KafkaNodePool")
        for volume in pool["spec"]["storage"]["volumes"]
    )
    cores, memory, most_cores, most_memory = (sum(part) for part in zip(*found, strict=True))
    return Size(cores, memory, most_cores, most_memory, stored)


def _least(objects: Objects, pod: Pod) -> int:
    name = pod.owner.partition("/")[2]
    for scaler in objects.of("HorizontalPodAutoscaler", "ScaledObject"):
        if scaler["spec"]["scaleTargetRef"]["name"] == name:
            return int(scaler["spec"].get("minReplicas") or scaler["spec"].get("minReplicaCount") or 0)
    return int(pod.made_by["spec"].get("replicas", 1))


def _times(resources: Object, replicas: int) -> tuple[float, float, float, float]:
    requests, limits = resources["requests"], resources["limits"]
    one = (requests["cpu"], requests["memory"], limits["cpu"], limits["memory"])
    cores, memory, most_cores, most_memory = (replicas * quantity(amount) for amount in one)
    return cores, memory, most_cores, most_memory
