"""What a feature may be made of. All of it is commutative: the order of events never matters.

    Count                  over tiles: the sum of 1
    Sum, Min, Max, Mean    over tiles: 64-bit fixed-point sum, min, max, sum and count. Read in the field's
                           unit; of nothing, a Sum is 0 and the others are the default
    Ratio                  two counts. Read: rate = (hits + s x prior) / (max(n, hits) + s), or lift = the
                           logarithm of the rate's odds over the prior's
    Decayed                a count. Read: sum of count x weight of the tile's age in hops; weights
                           2^(-age / half-life) in 24-bit fixed point
    Distinct               2**precision HyperLogLog registers. Read: an estimate, relative standard error
                           1.04 / sqrt(2**precision), up to half more around 2**precision x 3
    Elapsed                min or max of occurred_at. Read: seconds since the first or last event
    LastK                  no tiles: the newest k events themselves, by (occurred_at, event hash). Read: READS
    Instant                nothing: a function of the request's time

``window_us`` 0 of a feature means all time.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.contract.view_events import Select


@dataclass(frozen=True)
class Count:
    """How many."""

    events: Select


@dataclass(frozen=True)
class Sum:
    """Of a number."""

    events: Select
    field: str


@dataclass(frozen=True)
class Min:
    """Of a number."""

    events: Select
    field: str


@dataclass(frozen=True)
class Max:
    """Of a number."""

    events: Select
    field: str


@dataclass(frozen=True)
class Mean:
    """Of a number."""

    events: Select
    field: str


@dataclass(frozen=True)
class Distinct:
    """How many different values of a field."""

    events: Select
    field: str
    precision: int = 6


@dataclass(frozen=True)
class Decayed:
    """How many, each weighing half as much after a half-life. The age counts in whole tiles."""

    events: Select
    half_life_us: int


@dataclass(frozen=True)
class Ratio:
    """``hits`` of ``events``, as if ``prior`` had been seen in ``strength`` events. ``read``: rate, lift."""

    events: Select
    hits: Select
    prior: float
    strength: float
    read: str = "rate"


@dataclass(frozen=True)
class Elapsed:
    """Seconds since the ``which`` (first, last) event."""

    events: Select
    which: str


@dataclass(frozen=True)
class LastK:
    """Something about the newest k events, of which ``fields`` are kept. ``read`` is one of READS; ``field``
    is the one of ``fields`` that it looks at."""

    events: Select
    fields: tuple[str, ...]
    k: int
    read: str
    field: str = ""


@dataclass(frozen=True)
class Instant:
    """One of INSTANTS."""

    function: str


Aggregate = Count | Sum | Min | Max | Mean | Distinct | Decayed | Ratio | Elapsed | LastK | Instant


@dataclass(frozen=True)
class Feature:
    """One float32 column: an aggregate over a window, then ``scale`` (see SCALES), / ``divide``, clipped to
    +- ``limit`` (None = not). ``default`` is said as it stands."""

    name: str
    aggregate: Aggregate
    window_us: int = 0
    default: float = 0.0
    scale: str = "linear"
    divide: float = 1.0
    limit: float | None = 3.0
    description: str = ""


# log1p: of the value, at least 0.
SCALES = ("linear", "log1p")
# What a LastK says: how many there are (at most k); whether there is any; seconds since the newest; the
# newest one's number; seconds since the time that the newest one holds. Then, compared with the candidate's
# own field: the share that has it, whether the newest has it, whether any has it.
READS = ("count", "any", "seconds", "value", "value_age", "share_of", "newest_is", "contains")
MATCHING_READS = ("share_of", "newest_is", "contains")
FIELD_READS = ("value", "value_age", *MATCHING_READS)
RATIO_READS = ("rate", "lift")
# Sine and cosine of the UTC time of day.
INSTANTS = ("day_sin", "day_cos")
