"""What is wrong with a feature view: every contradiction at once, with its place, its value, what is allowed.

Works on the raw arguments of a FeatureView and trusts no type in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, get_args

from services.contract.errors import FieldViolation
from services.contract.view_aggregates import (
    FIELD_READS,
    INSTANTS,
    RATIO_READS,
    READS,
    SCALES,
    Aggregate,
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
from services.contract.view_events import (
    FIELDS,
    ID_OPS,
    KINDS,
    MAX_IN,
    OPS,
    Condition,
    Select,
    fits,
)

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
VIEW_KINDS = ("batch", "streaming", "instant")
# Below, H - N of an empty state would not fit into 64 bits; above, a hop is no hop.
MIN_HOP_US, MAX_HOP_US = 1_000, 366 * 86_400 * 1_000_000
MAX_WINDOW_HOPS = 512
MAX_SLACK_HOPS = 64
MAX_FEATURES = 64
MAX_K = 64
MAX_VERSION = 1_000_000
_NUMBERED = (Sum, Min, Max, Mean)


class _Bad(list[FieldViolation]):
    def add(self, field: str, value: object, allowed: str) -> None:
        self.append(FieldViolation(field, repr(value)[:100], allowed))


def violations(given: Mapping[str, Any]) -> list[FieldViolation]:
    """Of the arguments of a FeatureView, by name."""
    bad = _Bad()
    instant = given["kind"] == "instant"
    if not isinstance(given["name"], str) or not NAME.fullmatch(given["name"]):
        bad.add("name", given["name"], "a lower-case identifier")
    if not _between(given["version"], 1, MAX_VERSION):
        bad.add("version", given["version"], f"an int from 1 to {MAX_VERSION}")
    if given["kind"] not in VIEW_KINDS:
        bad.add("kind", given["kind"], f"one of {', '.join(VIEW_KINDS)}")
    if not _between(given["slack_hops"], 1, MAX_SLACK_HOPS):
        bad.add("slack_hops", given["slack_hops"], f"an int from 1 to {MAX_SLACK_HOPS}")
    for name in ("owner", "description"):
        if not isinstance(given[name], str):
            bad.add(name, given[name], "a string")
    if instant:
        if given["key"] != () or given["sources"] != () or given["filter"] != () or given["hop_us"] != 0:
            bad.add("kind", "instant", "no key, sources or filter, and hop_us 0")
        sources: tuple[str, ...] = ()
    else:
        if not _between(given["hop_us"], MIN_HOP_US, MAX_HOP_US):
            bad.add("hop_us", given["hop_us"], f"an int from {MIN_HOP_US} to {MAX_HOP_US}")
        sources = _sources(bad, given["sources"])
        _key(bad, given["key"], sources)
        _conditions(bad, "filter", given["filter"], sources)
    _features(bad, given, sources, instant)
    return bad


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _between(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _sources(bad: _Bad, sources: object) -> tuple[str, ...]:
    if not isinstance(sources, tuple) or not sources or len(set(map(repr, sources))) != len(sources):
        bad.add("sources", sources, "a tuple of at least one kind of event, none twice")
        return ()
    known = tuple(name for name in sources if isinstance(name, str) and name in KINDS)
    if len(known) < len(sources):
        bad.add("sources", sources, f"of {', '.join(KINDS)}")
    return known


def _key(bad: _Bad, key: object, sources: tuple[str, ...]) -> None:
    if not isinstance(key, tuple) or len(set(map(repr, key))) != len(key):
        bad.add("key", key, "a tuple of fields, none twice")
        return
    for name in key:
        for source in sources:
            field = FIELDS[source].get(name) if isinstance(name, str) else None
            if field is None or not field.may_key:
                bad.add("key", name, f"a key field of {source}: {_names(source, key=True)}")


def _names(source: str, key: bool = False, type_: str = "") -> str:
    found = FIELDS[source].values()
    return ", ".join(f.name for f in found if (f.may_key or not key) and type_ in ("", f.type)) or "none"


def _conditions(bad: _Bad, at: str, where: object, sources: tuple[str, ...]) -> None:
    if not isinstance(where, tuple) or not all(isinstance(one, Condition) for one in where):
        bad.add(at, where, "a tuple of Conditions on declared fields; text is never evaluated")
        return
    for index, condition in enumerate(where):
        for source in sources:
            _condition(bad, f"{at}[{index}]", condition, source)


def _condition(bad: _Bad, at: str, condition: Condition, source: str) -> None:
    field = FIELDS[source].get(condition.field) if isinstance(condition.field, str) else None
    if field is None:
        bad.add(f"{at}.field", condition.field, f"a field of {source}: {_names(source)}")
        return
    ops = ID_OPS if field.type == "id" else tuple(OPS)
    if condition.op not in ops:
        bad.add(f"{at}.op", condition.op, f"for {field.name} one of {', '.join(ops)}")
        return
    if condition.op == "in":
        several = isinstance(condition.value, tuple) and 0 < len(condition.value) <= MAX_IN
        good = several and all(fits(field, one) for one in condition.value)  # type: ignore[union-attr]
        allowed = f"a tuple of 1 to {MAX_IN} ints that {field.name} can hold"
    else:
        good = fits(field, condition.value)
        allowed = f"an int that {field.name} can hold"
    if not good:
        bad.add(f"{at}.value", condition.value, allowed)


def _features(bad: _Bad, given: Mapping[str, Any], sources: tuple[str, ...], instant: bool) -> None:
    features = given["features"]
    if (
        not isinstance(features, tuple)
        or not 0 < len(features) <= MAX_FEATURES
        or not all(isinstance(one, Feature) for one in features)
    ):
        bad.add("features", features, f"a tuple of 1 to {MAX_FEATURES} Features")
        return
    names = [repr(feature.name) for feature in features]
    for index, feature in enumerate(features):
        at = f"features[{index}]"
        if not isinstance(feature.name, str) or not NAME.fullmatch(feature.name):
            bad.add(f"{at}.name", feature.name, "a lower-case identifier")
        elif names.index(repr(feature.name)) < index:
            bad.add(f"{at}.name", feature.name, "a name that no earlier feature has")
        _feature(bad, at, feature)
        _window(bad, f"{at}.window_us", feature, given["hop_us"])
        if not isinstance(feature.aggregate, get_args(Aggregate)):
            bad.add(f"{at}.aggregate", feature.aggregate, "an aggregate")
        elif isinstance(feature.aggregate, Instant) is not instant:
            bad.add(f"{at}.aggregate", feature.aggregate, "Instant in an instant view, and only there")
        else:
            bad += _aggregate(f"{at}.aggregate", feature, sources)


def _feature(bad: _Bad, at: str, feature: Feature) -> None:
    if not _finite(feature.default):
        bad.add(f"{at}.default", feature.default, "a finite number")
    if feature.scale not in SCALES:
        bad.add(f"{at}.scale", feature.scale, f"one of {', '.join(SCALES)}")
    if not _finite(feature.divide) or feature.divide <= 0:
        bad.add(f"{at}.divide", feature.divide, "a finite number above 0")
    if feature.limit is not None and (not _finite(feature.limit) or feature.limit <= 0):
        bad.add(f"{at}.limit", feature.limit, "None or a finite number above 0")
    if not isinstance(feature.description, str):
        bad.add(f"{at}.description", feature.description, "a string")


def _window(bad: _Bad, at: str, feature: Feature, hop_us: object) -> None:
    window = feature.window_us
    if not _whole(window) or window < 0:
        bad.add(at, window, "an int, 0 (all time) or a multiple of hop_us")
    elif isinstance(feature.aggregate, Decayed) and window == 0:
        bad.add(at, window, "above 0: the decay is evaluated over a window")
    elif window and isinstance(hop_us, int) and hop_us > 0:
        if window % hop_us:
            bad.add(at, window, f"a multiple of hop_us={hop_us}")
        elif window // hop_us > MAX_WINDOW_HOPS:
            bad.add(at, window, f"at most {MAX_WINDOW_HOPS} hops of hop_us={hop_us}")
    elif window and hop_us == 0:
        bad.add(at, window, "0 for an instant feature")


def _aggregate(at: str, feature: Feature, sources: tuple[str, ...]) -> Iterator[FieldViolation]:
    bad = _Bad()
    aggregate = feature.aggregate
    if isinstance(aggregate, Instant):
        if aggregate.function not in INSTANTS:
            bad.add(f"{at}.function", aggregate.function, f"one of {', '.join(INSTANTS)}")
        return iter(bad)
    kind = _select(bad, f"{at}.events", aggregate.events, sources)
    if isinstance(aggregate, _NUMBERED) and kind:
        _field(bad, at, aggregate.field, kind, "number")
    elif isinstance(aggregate, Distinct):
        if kind:
            _field(bad, at, aggregate.field, kind)
        if not _between(aggregate.precision, 5, 8):
            bad.add(f"{at}.precision", aggregate.precision, "an int from 5 to 8")
    elif isinstance(aggregate, Decayed) and not _between(aggregate.half_life_us, 1, 1 << 60):
        bad.add(f"{at}.half_life_us", aggregate.half_life_us, "an int above 0")
    elif isinstance(aggregate, Elapsed) and aggregate.which not in ("first", "last"):
        bad.add(f"{at}.which", aggregate.which, "first or last")
    elif isinstance(aggregate, Ratio):
        _ratio(bad, at, aggregate, feature.scale, sources)
    elif isinstance(aggregate, LastK):
        _last_k(bad, at, aggregate, kind)
    return iter(bad)


def _select(bad: _Bad, at: str, select: object, sources: tuple[str, ...]) -> str:
    """The kind of its events, "" when it is none of the sources."""
    if not isinstance(select, Select):
        bad.add(at, select, "a Select")
        return ""
    if select.kind not in sources:
        bad.add(f"{at}.kind", select.kind, f"one of the view's sources: {', '.join(sources) or 'none'}")
        return ""
    _conditions(bad, f"{at}.where", select.where, (select.kind,))
    return select.kind


def _field(bad: _Bad, at: str, name: object, kind: str, type_: str = "") -> None:
    field = FIELDS[kind].get(name) if isinstance(name, str) else None
    if field is None or type_ not in ("", field.type):
        bad.add(f"{at}.field", name, f"a {type_ or 'field'} of {kind}: {_names(kind, type_=type_)}")


def _ratio(bad: _Bad, at: str, ratio: Ratio, scale: str, sources: tuple[str, ...]) -> None:
    _select(bad, f"{at}.hits", ratio.hits, sources)
    if not _finite(ratio.prior) or not 0 < ratio.prior < 1:
        bad.add(f"{at}.prior", ratio.prior, "between 0 and 1, both excluded")
    if not _finite(ratio.strength) or ratio.strength <= 0:
        bad.add(f"{at}.strength", ratio.strength, "a finite number above 0")
    if ratio.read not in RATIO_READS:
        bad.add(f"{at}.read", ratio.read, f"one of {', '.join(RATIO_READS)}")
    if ratio.read == "lift" and scale == "log1p":
        bad.add(f"{at}.read", ratio.read, "rate for scale log1p: a lift is a logarithm already")


def _last_k(bad: _Bad, at: str, last: LastK, kind: str) -> None:
    if not _between(last.k, 1, MAX_K):
        bad.add(f"{at}.k", last.k, f"an int from 1 to {MAX_K}")
    if last.read not in READS:
        bad.add(f"{at}.read", last.read, f"one of {', '.join(READS)}")
    if not isinstance(last.fields, tuple) or len(set(map(repr, last.fields))) != len(last.fields):
        bad.add(f"{at}.fields", last.fields, "a tuple of fields, none twice")
        return
    for name in last.fields if kind else ():
        _field(bad, at, name, kind)
    if last.read in FIELD_READS:
        if last.field not in last.fields:
            bad.add(f"{at}.field", last.field, f"for {last.read} one of {', '.join(map(str, last.fields))}")
        elif last.read in ("value", "value_age") and kind:
            _field(bad, at, last.field, kind, "number" if last.read == "value" else "time")
    elif last.field != "":
        bad.add(f"{at}.field", last.field, f"empty for {last.read}")
