"""A plot says what its data say: its points are read back out of the image."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.report.charts import Bar, Point, Range, bars, line, ranges
from local.report.lanes import lanes
from local.report.plot import Axis, Mark, Series, nice, plot, round_ticks
from local.report.series import Stretch
from tests.report_kit import Drawn

X, Y = Axis("time, s", low=0.0), Axis("AUC")
NUMBERS = st.integers(-(10**8), 10**8).map(lambda value: value / 1_000)


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=2, max_size=20, unique=True))
def test_every_point_is_where_its_numbers_say(values: list[float]) -> None:
    where = [float(place) for place in range(len(values))]
    [line] = Drawn(plot("t", [Series("online", where, values)], X, Y)).lines()
    # A place is said to a tenth of a unit, of some 170 up and 320 across; a tick to its own last digit.
    for (x, y), (found_x, found_y) in zip(zip(where, values, strict=True), line, strict=True):
        assert found_x == pytest.approx(x, abs=0.01 * len(values))
        assert found_y == pytest.approx(y, abs=0.01 * (max(values) - min(values)))


def test_error_bars_reach_as_far_as_the_error_and_none_is_no_bar() -> None:
    line = Series("online", [0.0, 1.0, 2.0], [0.5, 0.6, 0.7], [0.05, None, math.nan])
    drawn = Drawn(plot("t", [line], X, Y))
    [(low, high)] = drawn.bars()
    assert (low, high) == (pytest.approx(0.45, abs=1e-3), pytest.approx(0.55, abs=1e-3))
    assert len(drawn.dots()) == 3


@pytest.mark.parametrize("absent", [None, math.nan, math.inf])
def test_what_is_not_known_is_a_gap_and_never_a_point(absent) -> None:
    drawn = Drawn(plot("t", [Series("a", [0, 1, 2, 3, 4, 5, 6], [1, 2, absent, 3, absent, 4, 5])], X, Y))
    assert [len(stretch) for stretch in drawn.lines()] == [2, 2]
    assert [round(y, 2) for _, y in drawn.dots()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("value", [0.0, -3.0, 1e9])
def test_points_that_no_digit_tells_apart_are_drawn_as_one_height(value: float) -> None:
    drawn = Drawn(plot("t", [Series("a", [0, 1], [value, value * (1 + 1e-15)])], X, Y))
    assert [y for _, y in drawn.dots()] == [pytest.approx(value, rel=1e-3, abs=1e-3)] * 2


def test_one_point_is_drawn_in_the_frame() -> None:
    drawn = Drawn(plot("t", [Series("a", [7.0], [0.25])], Axis("s"), Y))
    assert drawn.lines() == []
    assert drawn.dots() == [(pytest.approx(7, abs=0.01), pytest.approx(0.25, abs=0.001))]


@pytest.mark.parametrize("series", [[], [Series("a", [], [])], [Series("a", [1, 2], [math.nan, None])]])
def test_nothing_measured_is_said(series) -> None:
    figure = plot("AUC over time", series, X, Y)
    assert "Nothing to show" in figure and "AUC over time" in figure and "<svg" not in figure


def test_a_log_axis_gives_equal_ratios_equal_room() -> None:
    ticks = [(60.0, "1 min"), (600.0, "10 min"), (6_000.0, "100 min")]
    figure = plot(
        "t", [Series("a", [60, 600, 6_000], [1, 2, 3])], Axis("every", log=True, ticks=ticks), Axis("AUC")
    )
    places = [float(one.attrib["cx"]) for one in Drawn(figure).root.iter("circle")]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)
    assert "10 min" in figure and "log" not in figure


def test_a_log_axis_up_reads_back_by_decades() -> None:
    figure = plot("t", [Series("a", [0, 1, 2, 3], [0, 1, 10, 100])], X, Axis("s", log=True))
    heights = [float(one.attrib["cy"]) for one in Drawn(figure).root.iter("circle")]
    assert heights[1] - heights[2] == pytest.approx(heights[2] - heights[3], abs=0.2)
    # What is not above 0 has no place on it, and lies at its foot.
    assert heights[0] >= heights[1]


def test_names_are_escaped_and_said_on_pointing() -> None:
    name = '<b>"A & B"</b>'
    figure = plot(name, [Series(name, [0, 1], [2, 3], [0.5, 0.5])], X, Axis("<s>"), [Mark(0.5, "<1>")])
    assert "<b>" not in figure and "<s>" not in figure and "<1>" not in figure
    assert Drawn(figure).titles()[1] == f"{name}, time, s 1: 3 ± 0.5 <s>"


def test_the_names_of_arms_and_lineages_are_escaped() -> None:
    figure = lanes("<t>", [Stretch("<a>", "1/<b>", 0, 40)], 80, "s", [Mark(40, "<1>")])
    assert not [one for one in ("<t>", "<a>", "<b>", "<1>") if one in figure]
    assert Drawn(figure).titles() == ["<a>: 1/<b>, 0 to 40 s"]


def test_the_legend_has_every_series_with_its_colour() -> None:
    figure = plot("t", [Series("p50", [0], [1], colour="c2"), Series("p99", [0], [2], (), "c1", True)], X, Y)
    legend = figure[figure.index("legend") :]
    assert 'class="c2 key"></i>p50' in legend and 'class="c1 key dashed"></i>p99' in legend


@pytest.mark.parametrize(("x", "y", "error"), [([1], [], ()), ([1, 2], [1, 2], [0.1])])
def test_columns_of_other_lengths_are_refused(x, y, error) -> None:
    with pytest.raises(ValueError, match="online: "):
        Series("online", x, y, error)


@given(st.floats(1e-9, 1e9))
def test_steps_are_round_and_not_much_larger(step: float) -> None:
    found = nice(step)
    assert step * (1 - 1e-6) <= found <= step * 2.5 * (1 + 1e-6)
    assert round(found / 10.0 ** math.floor(math.log10(found) + 1e-9), 6) in (1, 2, 5)


def test_ticks_are_said_as_exactly_as_they_stand() -> None:
    assert list(round_ticks(0.0, 1.0)) == [(pytest.approx(one / 5), f"{one / 5:.1f}") for one in range(6)]
    assert [said for _, said in round_ticks(0.70, 0.75)] == ["0.70", "0.71", "0.72", "0.73", "0.74", "0.75"]
    assert [said for _, said in round_ticks(0, 50_000)] == ["0", "10k", "20k", "30k", "40k", "50k"]


def test_lanes_are_as_long_as_what_was_served() -> None:
    served = [
        Stretch("online", "1/online", 0, 40),
        Stretch("online", "2/online", 40, 80),
        Stretch("frozen", "1/online", 0, 80),
    ]
    figure = lanes("Arms", served, 80, "s", [Mark(40, "1", "c1")])
    drawn = Drawn(figure)
    widths = [float(one.attrib["width"]) for one in drawn.root.iter("rect")]
    assert widths[0] == pytest.approx(widths[1], abs=0.2)
    assert widths[2] == pytest.approx(2 * widths[0], abs=0.3)
    assert [one.attrib["class"] for one in drawn.root.iter("rect")] == ["c2", "c3", "c2"]
    assert drawn.titles() == [
        "online: 1/online, 0 to 40 s",
        "online: 2/online, 40 to 80 s",
        "frozen: 1/online, 0 to 80 s",
    ]
    mark = next(one for one in drawn.root.iter("line") if "mark" in one.attrib["class"])
    second = next(one for one in drawn.root.iter("rect") if one.attrib["class"] == "c3")
    assert mark.attrib["x1"] == second.attrib["x"]


# -- charts ------------------------------------------------------------------------------------------------


def test_bars_are_as_long_as_their_values_from_0_to_the_most() -> None:
    rows = [Bar("<a>", 1.0, "1"), Bar("b", 4.0, "4"), Bar("c", -1.0, "-1")]
    for most, longest in ((None, 1.0), (8.0, 0.5)):
        drawn = Drawn(bars("<t>", rows, most)).root
        track, *_ = lengths = [float(one.attrib["width"]) for one in drawn.iter("rect")]
        assert lengths[::2] == [track] * 3
        assert lengths[1::2] == [pytest.approx(share * longest * track, abs=0.1) for share in (0.25, 1, 0)]


@pytest.mark.parametrize(("log", "middle"), [(False, 10.0), (True, 1.0)])
def test_ranges_stand_where_their_axis_says(log: bool, middle: float) -> None:
    low, high = (0.1, 10.0) if log else (0.0, 20.0)
    ticks = [(one, f"{one:g}") for one in (low, middle, high)]
    drawn = Drawn(ranges("t", [Range("a", low, middle, high, "-"), Range("b", -9, middle, 99, "-")],
                         low, high, ticks, log=log)).root  # fmt: skip
    start, half, stop = (
        float(one.attrib["x1"]) for one in drawn.iter("line") if one.attrib["class"] == "grid"
    )
    assert half == pytest.approx((start + stop) / 2, abs=0.1)
    assert [float(one.attrib["cx"]) for one in drawn.iter("circle")] == [half, half]
    whiskers = [one.attrib for one in drawn.iter("line") if "whisker" in one.attrib["class"]]
    # Beyond the axis is at its end.
    assert [(float(one["x1"]), float(one["x2"])) for one in whiskers] == [(start, stop)] * 2


def test_points_of_a_line_are_as_high_as_their_values() -> None:
    points = [Point("a", "", value, "") for value in (0.0, 0.25, 0.5)]
    drawn = Drawn(line("t", points)).root
    base = next(float(one.attrib["y1"]) for one in drawn.iter("line"))
    low, middle, high = (base - float(one.attrib["cy"]) for one in drawn.iter("circle"))
    assert (low, middle) == (0, pytest.approx(high / 2, abs=0.1)) and high > 100
    path = next(one.attrib["points"] for one in drawn.iter("polyline"))
    assert path.split() == [f"{one.attrib['cx']},{one.attrib['cy']}" for one in drawn.iter("circle")]
