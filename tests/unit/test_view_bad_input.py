"""What views, filters, events, logs and labels may not be: refused with field, value and what is allowed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.contract.errors import InvalidInput, MalformedRecord
from services.contract.feature_view import FeatureView, view_from
from services.contract.view_aggregates import Count, Decayed, Distinct, Feature, Instant, LastK, Ratio, Sum
from services.contract.view_asof import asof
from services.contract.view_codec import canonical
from services.contract.view_events import ACTED, Condition, Event, Select, fixed_point
from services.contract.view_log import EventLog, Labels, log_of
from services.contract.view_plan import plan_of

SHOWN = Select("shown")
COUNT = Feature("n", Count(SHOWN), 2_000)
GOOD = {
    "name": "v",
    "version": 1,
    "key": ("user_id",),
    "sources": ("shown",),
    "features": (COUNT,),
    "hop_us": 1_000,
}
VIEW = FeatureView(**GOOD)


def with_(**changes) -> dict:
    return {"features": (replace(COUNT, **changes),)}


def of(aggregate) -> dict:
    return {"features": (Feature("n", aggregate, 2_000),)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Two Words"}, "name='Two Words': a lower-case identifier"),
        ({"version": 0}, "version=0: an int from 1"),
        ({"version": True}, "version=True"),
        ({"kind": "nightly"}, "kind='nightly': one of batch, streaming, instant"),
        ({"key": ("position",)}, "key='position': a key field of shown: user_id, item_id, category"),
        ({"key": ("user_id", "user_id")}, "key=.*none twice"),
        ({"key": "user_id"}, "key='user_id': a tuple of fields"),
        ({"sources": ()}, r"sources=\(\): a tuple of at least one"),
        ({"sources": ("orders",)}, "sources=.*of shown, acted, listed"),
        ({"hop_us": 10}, "hop_us=10: an int from 1000"),
        ({"hop_us": "60"}, "hop_us='60'"),
        ({"slack_hops": 0}, "slack_hops=0"),
        ({"features": ()}, "features=.*1 to 64 Features"),
        ({"features": (COUNT, COUNT)}, r"features\[1\].name='n': a name that no earlier feature has"),
        ({"features": [COUNT]}, "features=.*a tuple"),
        (with_(window_us=-1_000), r"features\[0\].window_us=-1000: an int, 0"),
        (with_(window_us=2_500), r"features\[0\].window_us=2500: a multiple of hop_us=1000"),
        (with_(window_us=1_000_000), "at most 512 hops"),
        (with_(window_us=2_000.0), "window_us=2000.0"),
        (with_(default=float("nan")), "default=nan: a finite number"),
        (with_(scale="sqrt"), "scale='sqrt': one of linear, log1p"),
        (with_(divide=0), "divide=0"),
        (with_(limit=-1.0), "limit=-1.0"),
        (with_(aggregate="count(*)"), r"features\[0\].aggregate='count\(\*\)': an aggregate"),
        (with_(aggregate=Instant("day_sin")), "Instant in an instant view, and only there"),
        (of(Count(Select("acted"))), "aggregate.events.kind='acted': one of the view's sources: shown"),
        (of(Sum(SHOWN, "price")), "aggregate.field='price': a number of shown: category, position"),
        (of(Sum(SHOWN, "user_id")), "aggregate.field='user_id': a number of shown"),
        (of(Distinct(SHOWN, "price")), "aggregate.field='price': a field of shown"),
        (of(Distinct(SHOWN, "item_id", 20)), "precision=20: an int from 5 to 8"),
        (of(Decayed(SHOWN, 0)), "half_life_us=0"),
        ({"features": (Feature("n", Decayed(SHOWN, 5)),)}, "window_us=0: above 0"),
        (of(Ratio(SHOWN, Select("acted"), 0.1, 1.0)), "aggregate.hits.kind='acted'"),
        (of(Ratio(SHOWN, SHOWN, 1.0, 1.0)), "prior=1.0: between 0 and 1"),
        (of(Ratio(SHOWN, SHOWN, 0.5, 0.0)), "strength=0.0"),
        (of(Ratio(SHOWN, SHOWN, 0.5, 1.0, "odds")), "read='odds': one of rate, lift"),
        (
            with_(aggregate=Ratio(SHOWN, SHOWN, 0.5, 1.0, "lift"), scale="log1p"),
            "read='lift': rate for scale log1p",
        ),
        (of(LastK(SHOWN, ("item_id",), 0, "count")), "k=0: an int from 1 to 64"),
        (of(LastK(SHOWN, ("item_id",), 2, "sum")), "read='sum': one of count"),
        (
            of(LastK(SHOWN, ("item_id",), 2, "contains", "category")),
            "field='category': for contains one of item_id",
        ),
        (of(LastK(SHOWN, ("item_id",), 2, "value", "item_id")), "field='item_id': a number of shown"),
        # A filter is data.
        ({"filter": "__import__('os').system('true')"}, "filter=.*text is never evaluated"),
        ({"filter": (lambda event: True,)}, "filter=.*a tuple of Conditions"),
        ({"filter": (Condition("price", "eq", 1),)}, r"filter\[0\].field='price': a field of shown"),
        ({"filter": (Condition("__class__", "eq", 1),)}, r"filter\[0\].field='__class__'"),
        ({"filter": (Condition("position", "=~", 1),)}, r"filter\[0\].op='=~'"),
        ({"filter": (Condition("user_id", "lt", 1),)}, r"filter\[0\].op='lt': for user_id one of eq, ne, in"),
        ({"filter": (Condition("position", "eq", "1"),)}, r"filter\[0\].value='1': an int"),
        ({"filter": (Condition("user_id", "eq", -1),)}, r"filter\[0\].value=-1"),
        ({"filter": (Condition("position", "in", ()),)}, r"filter\[0\].value=\(\): a tuple of 1 to 64"),
        (of(Count(Select("shown", (Condition("dwell_s", "eq", 1),)))), r"events.where\[0\].field='dwell_s'"),
        ({"kind": "instant"}, "kind='instant': no key, sources or filter, and hop_us 0"),
    ],
)
def test_a_contradiction_dies_in_the_constructor(change, message):
    with pytest.raises(InvalidInput, match=message):
        FeatureView(**GOOD | change)


def test_all_contradictions_are_told_at_once():
    with pytest.raises(InvalidInput) as caught:
        FeatureView("V", 0, ("x",), ("shown",), (Feature("n", Sum(SHOWN, "y"), -1),), 1)
    assert [violation.field for violation in caught.value.violations] == [
        "name",
        "version",
        "hop_us",
        "key",
        "features[0].window_us",
        "features[0].aggregate.field",
    ]


def test_a_state_has_a_largest_size():
    wide = tuple(Feature(f"n{p}", Distinct(SHOWN, "item_id", p), 400_000) for p in (8, 7))
    with pytest.raises(InvalidInput, match="bytes an entity: at most 65536"):
        plan_of(FeatureView(**GOOD | {"features": wide}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"is":"Event"}',
        '{"is":"FeatureView","name":"v"}',
        canonical(VIEW).replace('"is":"Count"', '"is":"Popen"'),
        canonical(VIEW).replace('"hop_us":1000', '"hop_us":1000,"more":1'),
        canonical(VIEW).replace('"hop_us":1000', '"hop_us":NaN'),
        canonical(VIEW).replace('"window_us":2000', '"window_us":2000,"x":{"a":1}'),
        canonical(VIEW).replace('"key":["user_id"]', '"key":{"is":"Select","kind":"shown"}'),
        "[" * 100_000,
        " " * 300_000,
    ],
)
def test_a_text_that_is_no_view_is_refused(text):
    with pytest.raises(InvalidInput):
        view_from(text)


FIELDS = {"user_id": 1, "item_id": 2, "category": 3, "position": 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "ordered"}, "kind='ordered': one of shown, acted, listed"),
        (
            {"fields": {"item_id": 2, "category": 3, "position": 4}},
            "user_id='missing': an unsigned 64-bit int",
        ),
        ({"fields": FIELDS | {"user_id": "7"}}, "user_id='7'"),
        ({"fields": FIELDS | {"user_id": -1}}, "user_id=-1"),
        ({"fields": FIELDS | {"position": 1.5}}, "position=1.5: an int below"),
        ({"fields": FIELDS | {"position": True}}, "position=True"),
        ({"fields": FIELDS | {"position": 1 << 40}}, "position=1099511627776"),
        ({"fields": FIELDS | {"price": 1}}, "price=unknown"),
        ({"occurred_us": 1.0}, "occurred_us=1.0"),
        ({"event_hash": -1}, "event_hash=-1"),
    ],
)
def test_an_event_of_the_wrong_shape_is_malformed(change, message):
    with pytest.raises(MalformedRecord, match=message):
        Event(**{"kind": "shown", "occurred_us": 1, "event_hash": 2, "fields": FIELDS} | change)


def test_fixed_point_rounds_to_even_and_refuses_what_has_no_size():
    dwell = next(field for field in ACTED.fields if field.name == "dwell_s")
    assert fixed_point(dwell, 0.1) == 100_000
    assert fixed_point(dwell, 2.5e-6) == 2
    for value in (float("nan"), float("inf"), 1e9):
        with pytest.raises(MalformedRecord, match=r"dwell_s=.*finite"):
            fixed_point(dwell, value)


LOG = log_of([Event("shown", 5, 1, FIELDS)], [9])
ASKED = Labels(np.array([7]), {"user_id": np.array([1], np.uint64)})


def test_a_log_of_unequal_columns_is_refused():
    columns = {
        name: getattr(LOG, name) for name in ("kind", "occurred_us", "event_hash", "appended_us", "origin")
    }
    fields = {"user_id": np.array([1], np.int64), "price": np.array([1])}
    with pytest.raises(InvalidInput) as caught:
        EventLog(**columns, sequence=np.array([1, 2]), fields=fields)
    assert [str(v) for v in caught.value.violations] == [
        "fields.price=unknown: one of user_id, item_id, category, position, action, dwell_s, created_at",
        "sequence=int64 (2,): int64 (1,)",
        "fields.user_id=int64 (1,): uint64 (1,)",
    ]


def test_labels_must_name_the_entity_and_the_candidate():
    with pytest.raises(InvalidInput, match="at_us=float64"):
        Labels(np.array([7.0]), {})
    with pytest.raises(InvalidInput, match="labels=no fields: with user_id"):
        asof(VIEW, LOG, Labels(np.array([7]), {}))
    compares = FeatureView(**GOOD | of(LastK(SHOWN, ("item_id",), 2, "contains", "item_id")))
    with pytest.raises(InvalidInput, match="labels=user_id: with item_id"):
        asof(compares, LOG, ASKED)
    with pytest.raises(InvalidInput, match="wall_us=none"):
        asof(VIEW, LOG, ASKED, "as_served")
    with pytest.raises(InvalidInput, match="mode='tomorrow': one of ideal, as_served"):
        asof(VIEW, LOG, ASKED, "tomorrow")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="lag_us=-1"):
        asof(VIEW, LOG, ASKED, lag_us=-1)
    assert asof(VIEW, LOG, ASKED).values.tolist() == [[1.0]]


def test_nothing_asked_and_nothing_logged_are_no_errors():
    none = np.array([], np.int64)
    assert asof(VIEW, LOG, Labels(none, {"user_id": none.astype(np.uint64)})).values.shape == (0, 1)
    empty = LOG.take(none)
    for mode in ("ideal", "as_served"):
        asked = replace(ASKED, wall_us=np.array([10]))
        found = asof(VIEW, empty, asked, mode)
        assert (found.values.tolist(), found.missing.tolist()) == ([[0.0]], [1])
