"""What happened between two readings of counters and histograms. Pure.

Replica by replica: one that was not there then has not told yet, one that is not there now tells nothing, and
one that has started again counts from zero, so that what it says is all that is known to have happened.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from services.runtime.exposition import Reading

Buckets = dict[float, float]


@dataclass(frozen=True)
class Change:
    """Of one source in ``seconds``: readings by replica, ``now`` and ``then``."""

    now: Mapping[str, Reading]
    then: Mapping[str, Reading]
    seconds: float

    def rate(self, name: str, **labels: str) -> float | None:
        """How much a counter grew in a second; None when no replica has it."""
        grown = [
            _grown(value, self.then[where].total(name, **labels) or 0.0)
            for where, reading in self.now.items()
            if where in self.then and (value := reading.total(name, **labels)) is not None
        ]
        return math.fsum(grown) / self.seconds if grown and self.seconds > 0 else None

    def rates(self, name: str, label: str) -> dict[str, float]:
        """The same by the values of a label."""
        values = {value for reading in self.now.values() for value in reading.by(name, label)}
        found = {value: self.rate(name, **{label: value}) for value in sorted(values)}
        return {value: rate for value, rate in found.items() if rate is not None}

    def quantile(self, name: str, q: float, **labels: str) -> float | None:
        """Of what a histogram took in meanwhile; None when that is nothing."""
        total: Buckets = {}
        for where, reading in self.now.items():
            if where in self.then:
                new = _grown_buckets(
                    reading.buckets(name, **labels), self.then[where].buckets(name, **labels)
                )
                for bound, count in new.items():
                    total[bound] = total.get(bound, 0.0) + count
        return quantile(total, q)


def _grown(now: float, then: float) -> float:
    return now - then if now >= then else now


def _grown_buckets(now: Buckets, then: Buckets) -> Buckets:
    if any(count < then.get(bound, 0.0) for bound, count in now.items()):
        return now
    return {bound: count - then.get(bound, 0.0) for bound, count in now.items()}


def quantile(buckets: Mapping[float, float], q: float) -> float | None:
    """Of values counted in cumulative buckets, evenly spread within each; beyond the last bound: that bound.
    None when nothing was counted."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if not total:
        return None
    wanted, below, lower = q * total, 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= wanted and count > below:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (wanted - below) / (count - below)
        below, lower = count, bound
    return lower
