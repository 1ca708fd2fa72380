"""What a page draws is what the evidence says, by arm and time."""

from __future__ import annotations

import json
import math
from html import escape

import pytest

from local.report import decisions as decided
from local.report.bins import Bins
from local.report.plot import Series
from local.report.series import FROZEN, ORACLE, Run
from tests.report_kit import START_US, S, clicked, decision, evidence, request, sample, shown

# Requests 0 to 9 in the first second, 10 to 19 in the last; odd ones by another arm.
NUMBERS = range(20)


def at_s(number: int) -> float:
    return 0.05 * number if number < 10 else 20 + 0.05 * number


def arm(number: int) -> str:
    return "candidate" if number % 2 else "online"


def rows(**other):
    return [request(number, at_s(number), arm=arm(number), **other) for number in NUMBERS]


def values(series: Series) -> list[float]:
    """What is drawn of it."""
    return [point[1] for point in series.points() if point is not None]


@pytest.mark.parametrize(
    ("length_s", "width_s", "unit"),
    [(0.0, 1, "s"), (25, 1, "s"), (120, 5, "s"), (600, 30, "s"), (3_600, 120, "min"), (86_400, 3_600, "h")],
)
def test_bins_are_about_thirty_of_a_width_that_one_says(length_s, width_s, unit) -> None:
    bins = Bins.over(length_s)
    assert (bins.width_s, bins.unit) == (width_s, unit)
    assert 1 <= bins.count <= 30 and bins.count * bins.width_s >= length_s


def test_clicks_count_for_the_arm_and_the_moment_of_their_request() -> None:
    events = [shown(number) for number in NUMBERS]
    # A repeated acknowledgement counts once; one of no request not at all.
    events += [clicked(0, 7), clicked(0, 7), clicked(2, 7), clicked(2, 8), clicked(11, 7), clicked(99, 7)]
    online, candidate = Run(evidence(requests=rows(), events=events)).click_rate()
    assert (online.name, candidate.name) == ("online", "candidate")
    assert values(online) == [pytest.approx(3 / 10), 0.0]
    assert values(candidate) == [0.0, pytest.approx(1 / 10)]
    # By requests: clicks 1, 2, 0, 0, 0 of two shown items each.
    spread = sum((clicks - 0.3 * 2) ** 2 for clicks in (1, 2, 0, 0, 0)) * 5 / 4
    assert online.error[0] == pytest.approx(math.sqrt(spread) / 10)


def test_few_rows_say_nothing() -> None:
    found = Run(evidence(requests=rows()[:8], events=[shown(number) for number in range(8)])).click_rate()
    assert [values(one) for one in found] == [[], []]


def test_auc_is_by_arm_and_of_first_labels() -> None:
    made = []
    for number in NUMBERS:
        # online orders them rightly, candidate the other way round.
        right, wrong = (0.9, 0.1) if arm(number) == "online" else (0.1, 0.9)
        made.append(sample(number, 1, 1.0, right, arm=arm(number)))
        made.append(sample(number, 2, 0.0, wrong, arm=arm(number)))
        made.append(sample(number, 2, 1.0, wrong, arm=arm(number), label_version=1))
    made.append(sample(99, 1, 1.0, 0.0))
    online, candidate = Run(evidence(requests=rows(), samples=made)).order()
    assert values(online) == [1.0, 1.0] and values(candidate) == [0.0, 0.0]


def test_regret_is_what_the_oracle_has_more_and_sums_up() -> None:
    events = [shown(number, items=10) for number in NUMBERS]
    run = Run(evidence(requests=rows(frozen_true_p=0.1), events=events))
    online, candidate, frozen = run.regret()
    assert values(online) == values(candidate) == [pytest.approx(0.3)] * 2
    assert (frozen.name, values(frozen)) == (FROZEN, [pytest.approx(0.4)] * 2)
    lost = run.lost_clicks()[0]
    # 5 requests of ten items at 0.3 each, twice.
    assert (lost.y[0], lost.y[-1]) == (pytest.approx(15), pytest.approx(30))
    assert [one.name for one in run.truth()] == ["online", "candidate", FROZEN, ORACLE]


def test_an_answer_without_truth_is_left_out_of_it() -> None:
    made = rows()
    made[0] |= {"shown_true_p": None, "frozen_true_p": 0.1}
    made[2] |= {"ideal_true_p": None}
    run = Run(evidence(requests=made, events=[shown(number, items=10) for number in NUMBERS]))
    assert [values(one) for one in run.truth()[:2]] == [[pytest.approx(0.2)], [pytest.approx(0.2)] * 2]
    lost = run.lost_clicks()[0]
    # Of ten requests of online eight have both truths; of the first five, three.
    assert (lost.y[0], lost.y[-1]) == (pytest.approx(9), pytest.approx(24))


def test_without_truth_there_is_no_regret() -> None:
    found = Run(evidence(requests=rows(shown_true_p=None, ideal_true_p=None)))
    assert found.regret() == [] and found.truth() == []


def test_latency_counts_from_the_intended_moment_and_leaves_failures_out() -> None:
    made = rows()
    made[0] |= {"status": "DEADLINE_EXCEEDED", "answered_us": made[0]["intended_us"] + 9 * S, "arm": ""}
    p50, p99 = Run(evidence(requests=made)).latency()
    assert (p50.name, values(p50)) == ("p50", [20.0, 20.0])
    assert values(p99) == [20.0, 20.0] and p99.dashed


def test_freshness_follows_each_click_through_its_stages() -> None:
    made = [clicked(number, 1, sent_s=at_s(number)) for number in NUMBERS]
    samples = [
        sample(number, 1, 1.0, 0.5, joined_us=START_US + int(at_s(number) * S) + 110_000)
        for number in NUMBERS
    ]
    trained = [[START_US + 22 * S, {"0": 20}]]
    deltas = [{"sequence": 1, "appended_us": START_US + 23 * S, "offsets": '{"0": 20}'}]
    deltas[0] |= {"generation": 1, "policy": "online", "steps": json.dumps(trained)}
    requests = [*rows(), request(50, 25.0, sequence=1)]
    run = Run(evidence(requests=requests, events=made, samples=samples, deltas=deltas))
    found = {one.name: values(one) for one in run.freshness(50)}
    assert found["collect"] == [pytest.approx(0.01)] * 2 and found["join"] == [pytest.approx(0.1)] * 2
    assert found["publish"] == [pytest.approx(1.0)] * 2 and found["apply"] == [pytest.approx(2.02)] * 2
    # The median click of the first ten was sent at 0.225 s.
    assert found["train"][0] == pytest.approx(22 - 0.225 - 0.11)
    assert found["all"][0] == pytest.approx(25.02 - 0.225 - 0.01)


def test_an_arm_serves_a_lineage_from_its_first_answer_to_its_last() -> None:
    made = [
        request(number, 10.0 * number, generation=1 if number < 3 else 2, arm="online") for number in range(6)
    ]
    made.append(request(9, 30.0, arm="frozen", generation=1))
    found = Run(evidence(requests=made)).stretches()
    assert [(one.arm, one.lineage, one.begin, one.until) for one in found] == [
        ("online", "1/online", 0.0, 20.0),
        ("online", "2/online", 30.0, 50.0),
        ("frozen", "1/online", 30.0, 30.0),
    ]


def test_decisions_are_numbered_in_order_and_the_bad_ones_red() -> None:
    events = [
        decision(12.0, "rolled_back", reason="guard"),
        decision(3.0, "promoted", difference="0.01", confidence_sequence=["0.002", "0.018"]),
        decision(1.0, "base_registered"),
    ]
    found = decided.notable(Run(evidence(requests=rows(), decisions=events)).decisions())
    assert [(one.decision, one.at_s) for one in found] == [("promoted", 3.0), ("rolled_back", 12.0)]
    assert [(mark.x, mark.label, mark.colour) for mark in decided.marks(found, 1.0)] == [
        (3.0, "1", "c2"),
        (12.0, "2", "c1"),
    ]
    assert "+0.0100" in decided.compared(found)


def test_evidence_is_said_checks_and_nested_ones_too() -> None:
    bad = {"name": "psi<", "value": 0.41234, "low": "-inf", "high": 0.25, "good": False}
    good = {"name": "calibration", "value": 1.0, "low": 0.8, "high": 1.25, "good": True}
    events = [decision(1.0, "rollback_ordered", guard={"checks": [bad, good], "manifest_digest": "abc"})]
    found = decided.listed(Run(evidence(requests=rows(), decisions=events)).decisions(), "s", 1.0)
    assert "<strong>psi&lt; 0.4123 (allowed -inf to 0.25)</strong>" in found
    assert "calibration 1 (allowed 0.8 to 1.25)" in found and "abc" not in found


def test_what_a_decision_says_is_escaped() -> None:
    events = [decision(1.0, "rolled_<back>", arm="<arm>", **{"<name>": "<value>"})]
    found = decided.listed(Run(evidence(requests=rows(), decisions=events)).decisions(), "s", 1.0)
    for said in ("<back>", "<arm>", "<name>", "<value>"):
        assert said not in found and escape(said) in found


def test_a_run_without_requests_has_nothing_and_does_not_fail() -> None:
    run = Run(evidence())
    found = [run.click_rate(), run.truth(), run.regret(), run.order(), run.age(), run.stretches()]
    assert found == [[]] * 6 and run.decisions() == []
    assert [values(one) for one in (*run.latency(), *run.freshness(99))] == [[]] * 8
