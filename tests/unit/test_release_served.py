"""What the arms served, as release sees it in the samples; and the steward that takes an arm back by
itself."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from rec.events.v1.events_pb2 import SampleRecord, TrainingSample
from rec.model.v1 import model_pb2
from services.contract import columns, times
from services.contract.errors import Conflict
from services.contract.times import MICROS
from services.release import lives
from services.release.decision import NOTHING, Decision
from services.release.gatekeeper import Gatekeeper
from services.release.registry import Registry
from services.release.rollbacks import report_rollback, roll_back
from services.release.served import ServedSamples, rows_of
from services.release.settings import GuardRules, Settings
from services.release.steward import Steward
from tests.trainer_kit import World, barrier_bytes

NOW_US = 1_800_000_000_000_000
ONLINE = model_pb2.Lineage(generation=1, policy="online")


def sample(
    arm: str = "online",
    sequence: int = 5,
    request: str = "r",
    *,
    labels=(1, 0),
    scores=(0.5, 0.1),
    scored_us: int = NOW_US,
    **changes,
) -> TrainingSample:
    n = len(labels)
    made = World().sample(rows=n, labels=np.array(labels))
    made.request_id, made.arm = request, arm
    made.model.lineage.CopyFrom(ONLINE)
    made.model.sequence = sequence
    times.set_us(made.scored_at, scored_us)
    made.scores = columns.encode(np.array(scores), columns.F32)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def record(**changes) -> bytes:
    return SampleRecord(sample=sample(**changes)).SerializeToString()


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def window(clock: Clock | None = None, max_rows: int = 1_000) -> ServedSamples:
    return ServedSamples(60.0, max_rows, clock or Clock())


def test_rows_carry_what_they_stand_for():
    rows = rows_of(record(sample_rate=0.25), 1.0)
    assert rows is not None
    assert (rows.arm, rows.generation, rows.sequence) == ("online", 1, 5)
    assert rows.weights.tolist() == [1.0, 4.0]


@pytest.mark.parametrize(
    "value",
    [
        barrier_bytes("b"),
        record(arm=""),
        record(label_versions=columns.encode(np.array([1, 1]), columns.U32)),
        SampleRecord().SerializeToString(),
    ],
)
def test_what_cannot_be_judged_is_passed_over(value):
    assert window().add(value) is None


@pytest.mark.parametrize("value", [b"\xff\xff", record(sample_rate=0.0), record(scores=(0.5,))])
def test_what_does_not_decode_is_counted(value):
    held = window()
    assert held.add(value) is None
    assert held.counts["malformed"] == 1


def test_the_parts_of_a_request_are_one_draw():
    held = window()
    held.add(record(request="a", labels=(1,), scores=(0.5,)))
    held.add(record(request="b"))
    held.add(record(request="a", labels=(0, 0, 0), scores=(0.1, 0.1, 0.1)))
    served = held.window("online")
    assert served.requests.tolist() == [0, 1, 1, 0, 0, 0]
    assert served.figures()["ctr"] == pytest.approx(2 / 6)
    assert held.arms() == ["online"]


def test_an_arm_is_asked_for_by_generation_and_from_a_sequence_on():
    held = window()
    for sequence in (4, 5, 6):
        held.add(record(sequence=sequence, request=str(sequence)))
    assert held.window("online", 1, from_sequence=5).size == 2
    assert held.window("online", 2).size == 0
    assert held.window("frozen").size == 0


def test_rows_leave_with_the_window_and_the_oldest_when_it_is_full():
    clock = Clock()
    held = window(clock, max_rows=5)
    for n in range(4):
        clock.now_s += 1
        held.add(record(request=str(n)))
    assert held.window("online").size == 2
    assert held.counts["evicted"] == 2
    clock.now_s += 61
    assert held.window("online").size == 0
    assert held.counts["evicted"] == 2


def test_what_an_arm_served_is_told_of_whole_requests_alone():
    """As the joiner says it: a click after 5 s, the rest of a request after 20 s, for two minutes."""
    clock, second = Clock(), 1_000_000
    held, start_s = window(clock, max_rows=100_000), 100
    told, as_it_is = [], []
    for now_s in range(start_s, start_s + 120):
        clock.now_s = float(now_s)
        for ago_s, labels in ((5, (1,)), (20, (0, 0, 0, 0))):
            served_s = now_s - ago_s
            if served_s >= start_s:
                made = sample(
                    request=str(served_s),
                    labels=labels,
                    scores=[0.2] * len(labels),
                    scored_us=served_s * second,
                )
                if ago_s == 5:
                    times.set_us(made.acted_at, now_s * second)
                held.add(SampleRecord(sample=made).SerializeToString())
        told.append(held.whole("online").figures()["ctr"])
        as_it_is.append(held.window("online").figures()["ctr"])
    # One request is none to judge by.
    assert np.isnan(told[:21]).all()
    assert told[21:] == pytest.approx([0.2] * 99)
    # The window as it is, which the guard judges by, begins with clicks alone.
    assert as_it_is[15] == 1 and as_it_is[30] > 0.3


class Rig:
    """A steward over a registry in memory."""

    def __init__(self, *, began_us: int = 1, **given: Any) -> None:
        self.registry = Registry()
        first = self.registry.register_generation("store/g1", bytes(32), 0, 0, now_us=began_us)
        self.registry.take(first.records)
        self.decisions: list[Decision] = []
        self.window = window(max_rows=1_000_000)
        settings = Settings(guard=GuardRules(min_requests=50), **given)
        self.steward = Steward(  # type: ignore[arg-type]
            settings, self.window, self, self.decide, Gatekeeper(settings, self.window, None)
        )
        self.random = np.random.default_rng(3)

    def now_us(self) -> int:
        return NOW_US

    async def decide(self, make, timeout_s: float) -> Decision:
        decision = make(self.registry)
        self.registry.take(decision.records)
        if decision is not NOTHING:
            self.decisions.append(decision)
        return decision

    def traffic(
        self,
        arm: str,
        sequence: int = 5,
        *,
        scores_by: float = 1.0,
        requests: int = 200,
        scored_us: int = NOW_US,
        only_clicks: bool = False,
    ) -> None:
        for n in range(requests):
            truth = self.random.beta(1, 9, 10)
            labels = (self.random.random(10) < truth).astype(int)
            if only_clicks:
                truth, labels = truth[labels > 0], labels[labels > 0]
                if not len(labels):
                    continue
            made = record(
                arm=arm,
                sequence=sequence,
                request=f"{arm}{sequence}{n}",
                labels=labels,
                scores=truth * scores_by,
                scored_us=scored_us,
            )
            self.window.add(made)


async def test_an_arm_that_is_worse_than_its_baseline_is_taken_back_once():
    rig = Rig()
    rig.traffic("baseline")
    rig.traffic("online", scores_by=0.03)
    for _ in range(3):
        await rig.steward.look()
    (decision,) = rig.decisions
    order = decision.answer.rollback
    assert order.reason == "guard of arm online"
    assert NOW_US - order.to_time.ToMicroseconds() == Settings().rollback_s * 1_000_000
    evidence = json.loads(decision.events[0].evidence_json)
    assert decision.events[0].decision == "rollback_ordered"
    assert "calibration" in evidence["guard"]["failed"]
    assert evidence["guard"]["arm"]["requests"] == 200


async def test_figures_of_an_arm_are_told_until_it_has_left_the_window():
    rig = Rig()
    rig.traffic("baseline")
    rig.traffic("online")
    figures = rig.steward._figures

    def told() -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for sample in next(iter(figures.collect())).samples:
            found.setdefault(sample.labels["arm"], {})[sample.labels["figure"]] = sample.value
        return found

    await rig.steward.look()
    assert {"baseline", "online"} <= told().keys()
    assert told()["online"].keys() == {"requests", "ctr", "auc", "log_loss", "calibration"}
    assert 0.6 < told()["online"]["auc"] < 1
    rig.window = rig.steward._window = window(max_rows=1_000_000)
    rig.traffic("online")
    await rig.steward.look()
    assert "baseline" not in told() and told()["online"]["requests"] == 200


async def test_a_generation_that_waits_at_the_gate_does_not_keep_the_baseline_waiting():
    rig = Rig(began_us=NOW_US - 400 * MICROS, auto_promote=True, baseline_share=0.05, baseline_age_s=300.0)
    second = rig.registry.register_generation("store/g2", b"2" * 32, 1, 0, now_us=NOW_US)
    rig.registry.take(second.records)
    with pytest.raises(Conflict, match="served nothing"):
        await rig.steward.look()
    assert [one.answer.arm for one in rig.decisions] == ["baseline"]


async def test_behind_the_rollback_only_new_rows_are_judged():
    rig = Rig()
    rig.traffic("baseline")
    rig.traffic("online", scores_by=0.03)
    await rig.steward.look()
    outcome = model_pb2.Rollback()
    outcome.CopyFrom(rig.decisions[0].answer.rollback)
    outcome.done.order, outcome.done.restored_sequence, outcome.sequence = outcome.order, 2, 9
    rig.registry.take(report_rollback(rig.registry, ONLINE, outcome, now_us=NOW_US).records)
    await rig.steward.look()
    rig.traffic("online", sequence=9)
    await rig.steward.look()
    assert len(rig.decisions) == 1
    # Poisoned again: another order.
    rig.traffic("online", sequence=10, scores_by=0.02, requests=2_000)
    await rig.steward.look()
    assert len(rig.decisions) == 2


async def test_behind_the_rollback_both_arms_are_judged_from_the_same_moment_on():
    """What is known of the newest requests are their clicks: held against a baseline of whole requests, any
    model would be taken back again and again."""
    rig = Rig()
    wish = model_pb2.Rollback(to_sequence=2, reason="test")
    order = roll_back(rig.registry, ONLINE, wish, now_us=NOW_US)
    rig.registry.take(order.records)
    outcome = model_pb2.Rollback()
    outcome.CopyFrom(order.answer.rollback)
    outcome.done.order, outcome.done.restored_sequence, outcome.sequence = outcome.order, 2, 9
    times.set_us(outcome.published_at, NOW_US)
    rig.registry.take(report_rollback(rig.registry, ONLINE, outcome, now_us=NOW_US).records)
    rig.traffic("baseline", scored_us=NOW_US - 1)
    rig.traffic("online", sequence=9, scored_us=NOW_US + 1, only_clicks=True)
    for _ in range(3):
        await rig.steward.look()
    assert rig.decisions == []
    rig.traffic("baseline", sequence=1, scored_us=NOW_US + 1, only_clicks=True)
    for _ in range(3):
        await rig.steward.look()
    assert rig.decisions == []
    # And worse than the baseline on the same is worse.
    rig.traffic("online", sequence=10, scored_us=NOW_US + 2, only_clicks=True, scores_by=0.02, requests=2_000)
    for _ in range(3):
        await rig.steward.look()
    assert len(rig.decisions) == 1


async def test_a_generation_that_is_held_is_not_taken_back_until_it_is_let_go():
    rig = Rig()
    rig.registry.take(lives.hold(rig.registry, 1, True, NOW_US, "looking").records)
    rig.traffic("baseline")
    rig.traffic("online", scores_by=0.03)
    for _ in range(3):
        await rig.steward.look()
    assert rig.decisions == []
    rig.registry.take(lives.hold(rig.registry, 1, False, NOW_US).records)
    await rig.steward.look()
    assert rig.decisions[0].answer.rollback.reason == "guard of arm online"


async def test_without_a_baseline_with_traffic_nobody_is_judged():
    rig = Rig()
    rig.traffic("online", scores_by=0.03)
    rig.traffic("frozen", scores_by=0.03)
    await rig.steward.look()
    assert rig.decisions == []


async def test_a_pinned_arm_is_nobodys_lineage_to_take_back():
    rig = Rig()
    rig.traffic("baseline")
    rig.traffic("frozen", scores_by=0.03)
    rig.traffic("online")
    await rig.steward.look()
    assert rig.decisions == []
