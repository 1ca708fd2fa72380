"""The objects of one built overlay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """The pod of something that makes pods: ``owner`` is that ("Deployment/ranking")."""

    owner: str
    made_by: Object
    labels: Mapping[str, str]
    spec: Object

    @property
    def container(self) -> Object:
        """Its one container."""
        found: Object = self.spec["containers"][0]
        return found

    @property
    def component(self) -> str:
        """Which part of the loop it is; of a stranger's pod the owner's name."""
        return self.labels.get("app.kubernetes.io/component", self.owner.partition("/")[2])

    @property
    def ours(self) -> bool:
        """Whether the project's own image runs in it."""
        return self.labels.get("app.kubernetes.io/name") == "recloop"

    @property
    def serves(self) -> bool:
        """Whether it lives until it is stopped."""
        return self.owner.startswith(("Deployment/", "StatefulSet/"))


class Objects:
    """By kind and name; ``overlay`` is where they come from."""

    def __init__(self, overlay: str, found: Sequence[Object]) -> None:
        self.overlay = overlay
        self.all = [one for one in found if one]

    def of(self, *kinds: str) -> list[Object]:
        """The objects of these kinds."""
        return [one for one in self.all if one["kind"] in kinds]

    def named(self, kind: str, name: str) -> Object | None:
        """One object, or None."""
        return next((one for one in self.of(kind) if one["metadata"]["name"] == name), None)

    def pods(self) -> Iterator[Pod]:
        """Every pod that something here makes."""
        for one in self.of("Deployment", "StatefulSet", "Job", "CronJob"):
            spec = one["spec"]
            template = (spec["jobTemplate"]["spec"] if one["kind"] == "CronJob" else spec)["template"]
            labels = template.get("metadata", {}).get("labels", {})
            yield Pod(label(one), one, labels, template["spec"])

    def our_pods(self) -> list[Pod]:
        """Those of the project's own image."""
        return [pod for pod in self.pods() if pod.ours]


def label(one: Object) -> str:
    """What an object is called in a line: Kind/name."""
    return f"{one['kind']}/{one['metadata']['name']}"


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector (matchLabels, matchExpressions In and Exists) takes these labels; an empty one
    takes all, None takes nothing."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for rule in selector.get("matchExpressions", ()):
        value = labels.get(rule["key"])
        if rule["operator"] == "In" and value not in rule["values"]:
            return False
        if rule["operator"] == "Exists" and value is None:
            return False
        if rule["operator"] not in ("In", "Exists"):
            raise ValueError(f"selector operator {rule['operator']!r}: In or Exists here")
    return True
