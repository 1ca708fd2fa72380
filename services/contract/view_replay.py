"""The trusted interpreter: for each row that asks, all events of its entity, one after the other.

Written from the rules of feature_view alone, without tiles, slots or arrays, and quadratic. What it says is
right; the other two interpreters are held against it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

from services.contract.feature_view import SPARE, FeatureView
from services.contract.view_aggregates import (
    Count,
    Decayed,
    Distinct,
    Elapsed,
    Feature,
    Instant,
    LastK,
    Max,
    Mean,
    Min,
    Ratio,
    Sum,
)
from services.contract.view_events import FIELDS, Event, Select
from services.contract.view_log import Mode


@dataclass(frozen=True)
class Ask:
    """One row: the fields that name its entity and candidate, its event time, the request's wall time."""

    fields: Mapping[str, int]
    at_us: int
    wall_us: int = 0


@dataclass(frozen=True)
class Answer:
    """``values``: one float32 (as a float) per feature."""

    values: tuple[float, ...]
    missing: bool


def replay(
    view: FeatureView,
    log: Sequence[tuple[Event, int]],
    ask: Ask,
    mode: Mode = "ideal",
    lag_us: int = 0,
) -> Answer:
    """``log``: (event, append time in wall us), repeats included; of those the first counts."""
    if view.kind == "instant":
        return Answer(tuple(_instant(feature, ask.at_us) for feature in view.features), False)
    seen: set[tuple[str, int]] = set()
    there: list[Event] = []
    for event, appended_us in log:
        if (event.origin, event.sequence) in seen:
            continue
        seen.add((event.origin, event.sequence))
        if not view.takes(event) or any(event.fields[name] != ask.fields[name] for name in view.key):
            continue
        ideal = event.occurred_us < ask.at_us
        known = ideal if mode == "ideal" else appended_us + lag_us < ask.wall_us
        if known:
            there.append(event)
    hop = ask.at_us // view.hop_us
    newest_us = max((event.occurred_us for event in there), default=0)
    if not there or newest_us // view.hop_us - hop > view.slack_hops:
        return Answer(tuple(_float32(feature.default) for feature in view.features), True)
    head_counts = view.kind == "streaming" and newest_us < ask.at_us
    end_us = ask.at_us if head_counts else hop * view.hop_us
    return Answer(tuple(_feature(view, feature, there, ask, end_us) for feature in view.features), False)


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _feature(view: FeatureView, feature: Feature, there: list[Event], ask: Ask, end_us: int) -> float:
    start_us = -math.inf
    if feature.window_us:
        start_us = ask.at_us // view.hop_us * view.hop_us - feature.window_us
    if isinstance(feature.aggregate, LastK):
        value = _last(view, feature.aggregate, there, ask, start_us)
    else:
        window = [event for event in there if start_us <= event.occurred_us < end_us]
        value = _over(view, feature.aggregate, window, ask)
    return _float32(feature.default) if value is None else _float32(_scaled(feature, value))


def _scaled(feature: Feature, value: float) -> float:
    if feature.scale == "log1p":
        value = _ln(1.0 + max(value, 0.0))
    value = value / feature.divide
    return value if feature.limit is None else min(max(value, -feature.limit), feature.limit)


def _those(events: list[Event], select: Select) -> list[Event]:
    return [event for event in events if select.takes(event)]


def _over(view: FeatureView, aggregate: object, window: list[Event], ask: Ask) -> float | None:  # noqa: PLR0911
    """A feature of the events of its window."""
    if isinstance(aggregate, Ratio):
        return _ratio(aggregate, len(_those(window, aggregate.events)), len(_those(window, aggregate.hits)))
    assert not isinstance(aggregate, Instant | LastK)
    events = _those(window, aggregate.events)  # type: ignore[attr-defined]
    if isinstance(aggregate, Count):
        return float(len(events))
    if isinstance(aggregate, Decayed):
        weights = [_weight(view, aggregate, ask.at_us, event) for event in events]
        return sum(weights) / float(1 << 24)
    if isinstance(aggregate, Distinct):
        return _distinct({event.fields[aggregate.field] for event in events}, 1 << aggregate.precision)
    if isinstance(aggregate, Elapsed):
        if not events:
            return None
        times = [event.occurred_us for event in events]
        return (ask.at_us - (min(times) if aggregate.which == "first" else max(times))) / 1e6
    assert isinstance(aggregate, Sum | Min | Max | Mean)
    numbers = [event.fields[aggregate.field] for event in events]
    scale = FIELDS[aggregate.events.kind][aggregate.field].scale
    if isinstance(aggregate, Sum):
        return float(sum(numbers)) / scale
    if not numbers:
        return None
    if isinstance(aggregate, Mean):
        return float(sum(numbers)) / float(len(numbers) * scale)
    return float(min(numbers) if isinstance(aggregate, Min) else max(numbers)) / scale


def _ratio(ratio: Ratio, events: int, hits: int) -> float:
    p, s = float(ratio.prior), float(ratio.strength)
    if ratio.read == "rate":
        return (hits + s * p) / (max(events, hits) + s)
    return _ln((hits + s * p) / (max(events - hits, 0) + s * (1.0 - p)) * ((1.0 - p) / p))


def _weight(view: FeatureView, decayed: Decayed, at_us: int, event: Event) -> int:
    age = at_us // view.hop_us - event.occurred_us // view.hop_us
    with localcontext() as context:
        context.prec = 40
        exponent = -Decimal(view.hop_us) / Decimal(decayed.half_life_us) * age
        return int((Decimal(2) ** exponent * (1 << 24)).to_integral_value())


def _last(view: FeatureView, last: LastK, there: list[Event], ask: Ask, start_us: float) -> float | None:
    of = {
        (
            event.occurred_us,
            event.event_hash,
            *(event.fields[name] & (1 << 64) - 1 for name in last.fields),
        ): event
        for event in _those(there, last.events)
    }
    # Two features over the same events and fields share one list, which is as long as the longest needs.
    k = max(
        f.aggregate.k
        for f in view.features
        if isinstance(f.aggregate, LastK)
        and (f.aggregate.events, f.aggregate.fields) == (last.events, last.fields)
    )
    kept = sorted(of, reverse=True)[: k + SPARE]
    end_us = ask.at_us // view.hop_us * view.hop_us if view.kind == "batch" else ask.at_us
    found = [of[entry] for entry in kept if start_us <= entry[0] < end_us][: last.k]
    return _said(last, found, ask)


def _said(last: LastK, found: list[Event], ask: Ask) -> float | None:  # noqa: PLR0911
    if last.read == "count":
        return float(len(found))
    if last.read == "any":
        return float(bool(found))
    if last.read in ("share_of", "newest_is", "contains"):
        same = [event.fields[last.field] == ask.fields[last.field] for event in found]
        if last.read == "share_of":
            return sum(same) / max(len(found), 1)
        return float(any(same) if last.read == "contains" else bool(same) and same[0])
    if not found:
        return None
    if last.read == "seconds":
        return (ask.at_us - found[0].occurred_us) / 1e6
    stored = found[0].fields[last.field]
    if last.read == "value_age":
        return (ask.at_us - stored) / 1e6
    return float(stored) / FIELDS[last.events.kind][last.field].scale


def _ln(x: float) -> float:
    m, e = math.frexp(x)
    if m < math.sqrt(0.5):
        m, e = m * 2.0, e - 1
    s = (m - 1.0) / (m + 1.0)
    series = 1 / 15
    for odd in range(13, 0, -2):
        series = series * (s * s) + 1 / odd
    return e * math.log(2.0) + 2.0 * s * series


def _distinct(values: set[int], m: int) -> float:
    """The textbook HyperLogLog of the mixed values."""
    ranks = [0] * m
    for value in values:
        x = (value + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        bits = f"{x ^ (x >> 31):064b}"
        p = m.bit_length() - 1
        following = bits[p : p + 32]
        rank = min(len(following) - len(following.lstrip("0")) + 1, 32)
        register = int(bits[:p], 2)
        ranks[register] = max(ranks[register], rank)
    alpha = {16: 0.673, 32: 0.697, 64: 0.709}.get(m, 0.7213 / (1 + 1.079 / m))
    raw = alpha * (m * m) / sum(2.0**-rank for rank in ranks)
    if raw <= 2.5 * m and 0 in ranks:
        return m * _ln(m / ranks.count(0))
    return raw


def _instant(feature: Feature, at_us: int) -> float:
    assert isinstance(feature.aggregate, Instant)
    day_us = 86_400 * 1_000_000
    ahead_us = day_us // 4 if feature.aggregate.function == "day_cos" else 0
    turn = (at_us + ahead_us) % day_us / day_us
    turn = turn - 1.0 if turn > 0.75 else 0.5 - turn if turn > 0.25 else turn
    x = turn * (2 * math.pi)
    series = 1.0
    for n in range(15, 1, -2):
        series = 1.0 - series * (x * x) / (n * (n - 1))
    return _float32(_scaled(feature, x * series))
