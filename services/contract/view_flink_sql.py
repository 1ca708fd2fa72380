"""A feature view as Flink SQL, from the same definition: for who runs the views on a stream processor.

What SQL can say exactly, and no more: counts and rates in windows, linear, of kinds of events that stand in
tables. A row is (key fields, window_end, features): what the view says of the entity at that moment, which is
the end of a hop, so that every window is whole hops. Flink writes one for each hop's end at which anything
is in the longest window; where it writes none, the view says its defaults.

Tables, made by whoever has the connectors: one per kind of event, named as it, with the fields of the view's
key and conditions, and ``ts``, the event time with a watermark. ``table.local-time-zone`` must be UTC.

InvalidInput names what cannot be said: all time, LastK, logarithms (a library's differ by a last bit).
"""

from __future__ import annotations

from services.contract.errors import FieldViolation, InvalidInput
from services.contract.feature_view import FeatureView
from services.contract.view_aggregates import Count, Feature, Ratio
from services.contract.view_events import FIELDS, Condition, Select

_OPS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_MS = 1_000
# Two digits of days are what an interval's literal has.
_MAX_WINDOW_US = 100 * 86_400_000_000


def flink_sql(view: FeatureView) -> str:
    """Two statements: the view ``<name>_events``, and the SELECT. InvalidInput."""
    _check(view)
    fields = _needed(view)
    sources = "\n  UNION ALL\n  ".join(_source(view, kind, fields) for kind in view.sources)
    keys = ", ".join(view.key)
    columns = ",\n  ".join(f"{_value(view, one)} AS {one.name}" for one in view.features)
    longest = _interval(view.window_hops * view.hop_us)
    events = f"{view.name}_events"
    return f"""CREATE TEMPORARY VIEW {events} AS
  {sources};

SELECT {keys}, window_end,
  {columns}
FROM TABLE(HOP(TABLE {events}, DESCRIPTOR(ts), {_interval(view.hop_us)}, {longest}))
GROUP BY {keys}, window_start, window_end"""


def _check(view: FeatureView) -> None:
    bad = []
    if not view.key:
        bad.append(FieldViolation("key", "()", "at least one field"))
    if view.hop_us % _MS:
        bad.append(FieldViolation("hop_us", str(view.hop_us), "whole milliseconds"))
    for feature in view.features:
        aggregate, at = feature.aggregate, f"features.{feature.name}"
        if not isinstance(aggregate, Count) and not (
            isinstance(aggregate, Ratio) and aggregate.read == "rate"
        ):
            bad.append(FieldViolation(at, type(aggregate).__name__, "a Count, or a Ratio that reads rate"))
        if feature.scale != "linear":
            bad.append(FieldViolation(f"{at}.scale", feature.scale, "linear"))
        if not 0 < feature.window_us < _MAX_WINDOW_US:
            bad.append(FieldViolation(f"{at}.window_us", str(feature.window_us), "a window, below 100 days"))
    if bad:
        raise InvalidInput(bad)


def _needed(view: FeatureView) -> list[str]:
    """Fields of the union, besides the kind and the time."""
    selects = [one for feature in view.features for one in _selects(feature)]
    conditions = [*view.filter, *(condition for select in selects for condition in select.where)]
    return list(dict.fromkeys([*view.key, *(condition.field for condition in conditions)]))


def _selects(feature: Feature) -> list[Select]:
    aggregate = feature.aggregate
    assert isinstance(aggregate, Count | Ratio)
    return [aggregate.events, *([aggregate.hits] if isinstance(aggregate, Ratio) else [])]


def _source(view: FeatureView, kind: str, fields: list[str]) -> str:
    """A kind's rows; a field that it does not have is null."""
    columns = [name if name in FIELDS[kind] else f"CAST(NULL AS BIGINT) AS {name}" for name in fields]
    where = f" WHERE {_all(view.filter)}" if view.filter else ""
    return f"SELECT '{kind}' AS kind, {', '.join(columns)}, ts FROM {kind}{where}"


def _all(conditions: tuple[Condition, ...]) -> str:
    return " AND ".join(map(_condition, conditions))


def _condition(condition: Condition) -> str:
    if condition.op == "in":
        assert isinstance(condition.value, tuple)
        return f"{condition.field} IN ({', '.join(map(str, condition.value))})"
    return f"{condition.field} {_OPS[condition.op]} {condition.value}"


def _value(view: FeatureView, feature: Feature) -> str:
    """As view_values: doubles, then / divide, the limits, and float last."""
    aggregate = feature.aggregate
    assert isinstance(aggregate, Count | Ratio)
    window_us = view.hops(feature) * view.hop_us
    events = _count(view, aggregate.events, window_us)
    value = events
    if isinstance(aggregate, Ratio):
        hits = _count(view, aggregate.hits, window_us)
        strength = _double(aggregate.strength)
        prior = _double(float(aggregate.strength) * float(aggregate.prior))
        value = f"({hits} + {prior}) / (GREATEST({events}, {hits}) + {strength})"
    value = f"{value} / {_double(feature.divide)}"
    if feature.limit is not None:
        value = f"GREATEST(LEAST({value}, {_double(feature.limit)}), {_double(-feature.limit)})"
    return f"CAST({value} AS FLOAT)"


def _count(view: FeatureView, select: Select, window_us: int) -> str:
    where = [f"kind = '{select.kind}'", *map(_condition, select.where)]
    if window_us < view.window_hops * view.hop_us:
        where.append(f"CAST(ts AS TIMESTAMP(3)) >= window_end - {_interval(window_us)}")
    return f"CAST(COUNT(*) FILTER (WHERE {' AND '.join(where)}) AS DOUBLE)"


def _double(value: float) -> str:
    """The shortest text that is this number; with an exponent SQL takes it for a DOUBLE, not a DECIMAL."""
    text = repr(float(value))
    return text.upper() if "e" in text else f"{text}E0"


def _interval(us: int) -> str:
    seconds, ms = divmod(us // _MS, 1_000)
    days, rest = divmod(seconds, 86_400)
    hours, minutes = rest // 3_600, rest // 60 % 60
    return f"INTERVAL '{days} {hours:02d}:{minutes:02d}:{rest % 60:02d}.{ms:03d}' DAY TO SECOND(3)"
