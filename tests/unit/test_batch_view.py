"""Batch features by name: the bytes that were scored, or a reason."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.slim_traffic import YEAR_US, catalogue

from rec.events.v1 import events_pb2 as ev
from services.contract import batch_view, features, times
from services.contract.batch_view import VERSION, VIEW, Table, complete, slim, table
from tests.feature_kit import FEATURES, listed, shown, states_of

NOW_US = 1_760_000_000_000_000


def finding(*tables: Table):
    """A finder of these."""
    by_partition = {one.partition: one for one in tables}
    return lambda view: by_partition.get(view.partition, f"{view.partition} is gone")


def snapshot_of(ids: list[int], rows: np.ndarray, at_us: int = NOW_US) -> ev.FeatureSnapshot:
    """With these item columns [n, item_width] float32."""
    return ev.FeatureSnapshot(
        event_id="e",
        request_id="r",
        occurred_at=times.from_us(at_us),
        schema_hash=FEATURES.schema_hash,
        item_ids=np.array(ids, "<u8").tobytes(),
        scores=np.zeros(len(ids), "<f4").tobytes(),
        item_features=rows.astype("<f4").tobytes(),
    )


def encoded(items: list[tuple[int, int, int] | None], at_us: int) -> np.ndarray:
    """Item columns as the feature server encodes them: of listed items with a history, or without state."""
    events = []
    for number, item in enumerate(items):
        if item is not None:
            events += [listed(*item, number), shown(7, item[0], item[1], at_us - 5, number)]
    ids = np.array([0 if item is None else item[0] for item in items], np.uint64)
    return features.encode(FEATURES, states_of(events), 7, ids, at_us).items


@st.composite
def requests(draw: st.DrawFn) -> tuple[int, list[tuple[int, int, int]], list[int], list[int]]:
    """(time, catalogue rows, which of them the table has, which of them have state)."""
    at_us = draw(st.integers(10**12, 4 * 10**15))
    ages = st.one_of(st.integers(-(10**9), 2 * 10**9), st.integers(0, 20 * YEAR_US))
    rows = [
        (item, draw(st.integers(0, 70)), draw(st.sampled_from([0, at_us - draw(ages)])))
        for item in draw(st.lists(st.integers(1, 2**64 - 1), min_size=1, max_size=20, unique=True))
    ]
    some = st.lists(st.integers(0, len(rows) - 1), unique=True)
    return at_us, rows, draw(some), draw(some)


@given(requests(), st.integers(0, 3))
def test_a_rebuilt_snapshot_is_the_scored_one_byte_for_byte(case, added: int) -> None:
    """Also with columns of views that were added behind those of the set."""
    at_us, rows, listed, stateful = case
    known = table(7, [rows[k] for k in listed])
    scored = encoded([row if k in stateful else None for k, row in enumerate(rows)], at_us)
    more = np.arange(len(rows) * added, dtype=np.float32).reshape(len(rows), added)
    whole = snapshot_of([row[0] for row in rows], np.concatenate((scored, more), axis=1), at_us)
    thin = slim(whole, known, FEATURES)
    inline = np.frombuffer(thin.slim.inline_rows, "<u4").tolist()
    # What the table gives is named; a default may agree by chance.
    assert not set(listed) & set(stateful) & set(inline)
    assert set(range(len(rows))) - set(listed) <= set(inline)
    back = ev.FeatureSnapshot.FromString(thin.SerializeToString())
    assert complete(back, finding(known), FEATURES) is None
    assert back.SerializeToString() == whole.SerializeToString()


def test_an_ordinary_snapshot_names_all_rows_but_the_newborn_and_is_smaller() -> None:
    rows = catalogue(1, 100, NOW_US)
    known = table(3, rows[:98])
    whole = snapshot_of([row[0] for row in rows], encoded(rows, NOW_US))
    thin = slim(whole, known, FEATURES)
    assert thin.slim.batch_view == ev.BatchView(view=VIEW, version=VERSION, partition=3)
    assert np.frombuffer(thin.slim.inline_rows, "<u4").tolist() == [98, 99]
    assert len(thin.item_features) == 100 * 4 * (FEATURES.item_width - 2)
    assert thin.ByteSize() < 0.91 * whole.ByteSize()


def test_values_that_are_equal_but_not_the_same_bits_travel_inline() -> None:
    # Of age 0: not born yet.
    rows = [(item, 0, NOW_US + 10) for item in (1, 2, 3)]
    known = table(1, rows)
    scored = encoded(rows, NOW_US)
    scored[0, FEATURES.batch[1]] = -0.0
    scored[1, FEATURES.batch[1]] = np.float32(1e-45)
    whole = snapshot_of([1, 2, 3], scored)
    thin = slim(whole, known, FEATURES)
    assert np.frombuffer(thin.slim.inline_rows, "<u4").tolist() == [0, 1]
    assert complete(thin, finding(known), FEATURES) is None
    assert thin == whole


def test_without_a_table_everything_is_inline_and_no_table_is_needed() -> None:
    rows = catalogue(2, 10, NOW_US)
    whole = snapshot_of([row[0] for row in rows], encoded(rows, NOW_US))
    for known in (None, table(1, [])):
        thin = slim(whole, known, FEATURES)
        assert not thin.slim.HasField("batch_view")
        assert complete(thin, finding(), FEATURES) is None
        assert thin == whole


def changed(rows: list[tuple[int, int, int]]) -> Table:
    """The same partition with one item's category changed."""
    return table(1, [(rows[0][0], (rows[0][1] + 1) % 64, rows[0][2]), *rows[1:]])


@pytest.mark.parametrize(
    ("spoil", "tables", "why"),
    [
        (None, lambda rows: [], "1 is gone"),
        (None, lambda rows: [changed(rows)], "does not give the features that were scored"),
        (None, lambda rows: [table(1, rows[1:])], "does not give the features that were scored"),
        (lambda s: s.ClearField("item_features"), lambda rows: [table(1, rows)], "bytes of columns"),
        (lambda s: setattr(s, "item_features", s.item_features[:-4]), lambda rows: [], "bytes of columns"),
        (lambda s: setattr(s.slim, "inline_rows", b"\xff\0\0\0"), lambda rows: [], "bytes of columns"),
        (
            lambda s: setattr(s.slim, "item_features_hash", 5),
            lambda rows: [table(1, rows)],
            "does not give the features that were scored",
        ),
    ],
)
def test_what_cannot_be_rebuilt_exactly_gives_a_reason_and_stays_as_it_was(spoil, tables, why: str) -> None:
    rows = catalogue(4, 5, NOW_US)
    thin = slim(snapshot_of([row[0] for row in rows], encoded(rows, NOW_US)), table(1, rows), FEATURES)
    if spoil is not None:
        spoil(thin)
    before = thin.SerializeToString()
    said = complete(thin, finding(*tables(rows)), FEATURES)
    assert said is not None and why in said
    assert thin.SerializeToString() == before


def test_the_batch_columns_are_those_of_the_schema() -> None:
    named = [FEATURES.candidate_columns[index].name for index in FEATURES.batch]
    assert named == ["item_catalogue_category", "item_catalogue_age"]
    assert sorted(FEATURES.batch + FEATURES.not_batch) == list(range(FEATURES.item_width))
    assert batch_view.label(ev.BatchView(view="v", version=2, partition=3)) == "v/v2/3"
