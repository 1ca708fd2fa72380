"""All rules, for one overlay."""

from __future__ import annotations

from k8s.checks import availability, kafka, pods, traffic
from k8s.checks.objects import Objects

RULES = (*pods.RULES, *availability.RULES, *traffic.RULES, *kafka.RULES)


def problems(objects: Objects) -> list[str]:
    """One line per problem, without repeats, in the order of the rules."""
    found = (f"{objects.overlay}: {text}" for rule in RULES for text in rule(objects))
    return list(dict.fromkeys(found))
