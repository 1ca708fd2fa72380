"""What the benchmark of scale says of its points, and what it knows of messages and tables."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import scale_sizing
from benchmarks.bench_scale import DOCS, MARKED, missed, sizes
from benchmarks.scale_figures import Curve, crossover, exponent, table
from benchmarks.scale_sizing import Sizes, links, messages, table_bytes
from services.contract.features import encode
from services.contract.model_table import TableState
from tests.feature_kit import FEATURES


def _points(values: dict[int, tuple[float, float]]) -> list[dict]:
    return [{"x": x, "a": {"median": a, "min": a, "max": a}, "b": b} for x, (a, b) in values.items()]


def test_growth_is_that_of_the_last_tenfold() -> None:
    points = _points({1: (5.0, 7.0), 100: (1.0, 7.0), 300: (3.0, 7.0), 1_000: (10.0, 7.0)})
    assert exponent(points, "a") == 1.0
    assert exponent(points, "b") == 0.0
    assert exponent(points[:1], "a") is None and exponent(points, "c") is None
    assert exponent([{"x": 0, "b": 1.0}, *_points({10: (1.0, 2.0), 100: (1.0, 200.0)})], "b") == 2.0


def test_two_curves_cross_where_the_other_stays_cheaper() -> None:
    points = _points({10_000: (1.0, 2.0), 100_000: (2.0, 1.9), 300_000: (3.0, 3.3), 1_000_000: (10.0, 5.0)})
    crossing = crossover(points, "a", "b")
    assert crossing is not None and 300_000 < crossing < 1_000_000
    assert math.isclose(crossing, 345_000, rel_tol=0.02)
    assert crossover(points[1:2], "a", "b") == 100_000
    assert crossover(points[:1], "a", "b") is None
    assert crossover(points[:3], "a", "b") is None


def test_a_table_has_a_line_a_size_and_says_how_it_grows() -> None:
    curve = Curve("Rows", "rows", {"a": "A, ms", "b": "B", "c": "C"}, ("a",))
    lines = table(curve, _points({1_000: (0.5, 7.0), 10_000: (5.0, 70_000.0)})).splitlines()
    assert "| 1,000 | 0.500 (0.500 to 0.500) | 7.000 |  |" in lines
    assert "| 10,000 | 5.00 (5.00 to 5.00) | 70,000 |  |" in lines
    assert lines[-1] == "Over the last tenfold: A, ms as rows^1.00."


def test_sizes_are_a_factor_of_three_apart_and_end_where_they_should() -> None:
    assert sizes(100, 10_000) == [100, 300, 1_000, 3_000, 10_000]
    assert sizes(10_000, 50_000) == [10_000, 30_000]


def test_the_formula_of_a_link_gives_the_bytes_of_any_request() -> None:
    other = messages(Sizes(candidates=700, served=60, shown=7))
    for link in links():
        _, of = scale_sizing.MESSAGES[link.name]
        by_formula = link.fixed + 700 * link.per_candidate + 60 * link.per_served + 7 * link.per_shown
        # The formula's digits, and lengths that take another byte.
        assert abs(by_formula - of(other)) <= 0.02 * of(other) + 80, link
    assert {link.name.split(":")[0] for link in links()} >= {"feature-snapshots", "samples"}


def test_what_a_link_carries_is_what_must_be_carried() -> None:
    found = messages(Sizes())
    encoded = encode(FEATURES, {}, 1, np.arange(1_000, dtype=np.uint64), 1)
    # Ids of 8 bytes and the encoded features; what stands around them is small.
    assert 0 < found["rank"] - 1_000 * 8 - encoded.items.nbytes < 300
    assert 0 < found["retrieved"] - 1_000 * 9 < 100
    assert 0 < found["snapshot"] - 100 * (8 + 4 + 4 * FEATURES.item_width) < 300


@pytest.mark.parametrize("rows", [1_000, 5_000, 40_000])
def test_bytes_of_a_table_are_those_of_its_arrays(rows: int) -> None:
    table = TableState()
    ids = np.arange(1, rows + 1, dtype=np.uint64)
    table.add(ids)
    held = table.rows.nbytes + table.optimizer.nbytes + table.counts.nbytes + table.last_seen_us.nbytes
    held += table._index._slots.nbytes
    # Room to grow: an eighth at most.
    assert table_bytes(rows) <= held <= table_bytes(rows) * 1.15


def test_recall_below_the_promise_is_missed() -> None:
    points = [{"x": 10, "recall": 0.98}, {"x": 1_000, "recall": 0.979}]
    assert missed({"items": points}) == ["recall 0.979 with 1,000 items"]


def test_the_document_has_a_place_for_the_tables() -> None:
    assert len(MARKED.findall(DOCS.read_text())) == 1
