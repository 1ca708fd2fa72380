"""What a process's metrics page says: samples by name and label."""

from __future__ import annotations

import math
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from services.contract.errors import MalformedRecord

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Reading:
    """Samples of one page, or of the pages of several replicas together."""

    samples: Mapping[str, list[tuple[Labels, float]]] = field(default_factory=dict)

    def of(self, name: str, **labels: str) -> Iterator[tuple[Labels, float]]:
        """(labels, value) of the samples that have these labels."""
        for found, value in self.samples.get(name, ()):
            if all(found.get(key) == wanted for key, wanted in labels.items()):
                yield found, value

    def total(self, name: str, **labels: str) -> float | None:
        """Their sum; None when there is no such sample."""
        values = [value for _, value in self.of(name, **labels)]
        return math.fsum(values) if values else None

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Sums by the values of a label."""
        found: dict[str, float] = {}
        for one, value in self.of(name, **labels):
            key = one.get(label, "")
            found[key] = found.get(key, 0.0) + value
        return found

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """Of a histogram: upper bound -> how many were at most that, over all other labels."""
        by_bound = self.by(f"{name}_bucket", "le", **labels)
        return {float(bound): count for bound, count in by_bound.items()}


def parse(text: str) -> Reading:
    """A metrics page in Prometheus' text format; MalformedRecord when it is none."""
    samples: dict[str, list[tuple[Labels, float]]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, float(sample.value)))
    except (ValueError, KeyError, IndexError) as error:
        raise MalformedRecord.one("metrics", repr(error), "Prometheus' text format") from error
    return Reading(samples)


def fetched(target: str, timeout_s: float) -> Reading:
    """The page at ``host:port``, for who has no event loop to keep going. OSError when there is none."""
    with urllib.request.urlopen(f"http://{target}/metrics", timeout=timeout_s) as answer:
        return parse(answer.read().decode())


def together(readings: Iterable[Reading]) -> Reading:
    """All samples of several replicas."""
    samples: dict[str, list[tuple[Labels, float]]] = {}
    for reading in readings:
        for name, found in reading.samples.items():
            samples.setdefault(name, []).extend(found)
    return Reading(samples)
