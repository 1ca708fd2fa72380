"""The joiner's own rules: when to commit, what to send, where to recover."""

from __future__ import annotations

from typing import get_args

import pytest
from oracles.join_logs import IMP, A, S, one_sample

from rec.events.v1 import events_pb2 as ev
from services.contract import topics
from services.contract.errors import Conflict, InvalidInput
from services.contract.join_config import JoinConfig, LabelRule
from services.contract.join_events import SOURCES
from services.contract.join_output import BarrierPassed, Reason, Rejected, Sample
from services.contract.join_position import NEVER_US, Position, encode_position, start
from services.contract.times import to_us
from services.joiner.cadence import NEVER_S, Cadence, Waiting, inputs_ahead
from services.joiner.outgoing import outgoing, sample_record
from services.joiner.recovery import recover
from services.joiner.settings import LabelSettings, Settings
from services.runtime.settings import load

CADENCE = Cadence(positive_s=0.02, output_s=0.1, offsets_s=1.0)


@pytest.mark.parametrize(
    ("kinds", "due_s"),
    [
        ({}, 11.0),
        ({"output": True}, 10.1),
        ({"output": True, "positive": True}, 10.02),
        ({"output": True, "barrier": True}, 10.0),
    ],
)
def test_what_waits_decides_when_a_transaction_is_due(kinds: dict[str, bool], due_s: float) -> None:
    waiting = Waiting()
    assert waiting.due_s(CADENCE) == NEVER_S
    waiting.note(10.0, **kinds)
    waiting.note(10.5)
    assert waiting.due_s(CADENCE) == pytest.approx(due_s)


def test_the_first_of_a_kind_sets_the_clock_not_the_last() -> None:
    waiting = Waiting()
    for now_s in (10.0, 10.01, 10.015):
        waiting.note(now_s, positive=True)
    assert waiting.due_s(CADENCE) == pytest.approx(10.02)


def test_a_barrier_does_not_wait_behind_anything() -> None:
    waiting = Waiting()
    waiting.note(10.0, barrier=True, positive=True)
    assert waiting.due_s(CADENCE) == 10.0


def test_only_inputs_further_ahead_than_the_slack_wait() -> None:
    assert inputs_ahead({0: 100, 1: 105, 2: 111}, 10) == {2}
    assert inputs_ahead({0: NEVER_US, 1: 5, 2: 6}, 10) == {1, 2}


def test_a_sample_goes_to_its_own_partition_with_the_wall_time_of_the_join() -> None:
    message = one_sample()
    message.ClearField("joined_at")
    record = outgoing(
        Sample(message.SerializeToString(), message.request_id, 3, False),
        3,
        b"whatever",
        1_700_000_000_123_456,
    )
    assert (record.topic, record.partition, record.key) == ("samples", 3, b"r")
    sample = ev.SampleRecord.FromString(record.value).sample
    assert to_us(sample.joined_at) == 1_700_000_000_123_456
    sample.ClearField("joined_at")
    assert sample == message


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 3_000_000])
def test_the_envelope_by_hand_is_the_envelope_by_protobuf(size: int) -> None:
    sample = ev.TrainingSample(item_features=b"x" * size)
    assert sample_record(sample.SerializeToString()) == ev.SampleRecord(sample=sample).SerializeToString()


def test_a_row_keeps_its_bytes_and_says_why_and_where_it_stood() -> None:
    row = Rejected(Reason.LATE, IMP, 17, b"raw", "r", items=3)
    record = outgoing(row, 2, b"k", 0)
    assert (record.topic, record.value, record.key, record.partition) == ("late-events", b"raw", b"r", 0)
    assert dict(record.headers or ()) == {
        topics.HEADER_REASON: b"late",
        topics.HEADER_ORIGIN_TOPIC: b"impressions",
        topics.HEADER_ORIGIN_PARTITION: b"2",
        topics.HEADER_ORIGIN_OFFSET: b"17",
        "items": b"3",
    }
    broken = outgoing(Rejected(Reason.MALFORMED, A, 1, b"?", detail="no"), 2, b"k", 0)
    assert (broken.topic, broken.key) == ("dead-letters", b"k")
    assert dict(broken.headers or ())["detail"] == b"no"


def test_a_barrier_is_forwarded_on_the_tasks_partition() -> None:
    record = outgoing(BarrierPassed("b", 5_000_000), 1, None, 0)
    assert (record.topic, record.partition) == ("samples", 1)
    barrier = ev.SampleRecord.FromString(record.value).barrier
    assert (barrier.barrier_id, to_us(barrier.occurred_at)) == ("b", 5_000_000)


BEGIN = {S: 0, IMP: 5, A: 0}
ENDS = dict.fromkeys(SOURCES, 100)


def committed(offset: int, low: int) -> tuple[int, str]:
    return offset, encode_position(Position(offset, low, 7, 3))


def test_a_new_group_starts_at_the_beginning_of_each_log() -> None:
    found = recover({}, BEGIN, ENDS)
    assert found.positions == {S: start(0), IMP: start(5), A: start(0)}
    assert found.losses == {}


def test_what_retention_took_is_named() -> None:
    begin = dict.fromkeys(SOURCES, 20)
    kept = {S: committed(50, 30), IMP: committed(50, 10), A: committed(15, 10)}
    found = recover(kept, begin, ENDS)
    assert found.losses == {IMP: "replay_cut", A: "records_cut"}
    assert [(found.positions[s].low_offset, found.positions[s].offset) for s in SOURCES] == [
        (30, 50),
        (20, 50),
        (20, 20),
    ]
    assert found.positions[IMP].clock_us == 7


def test_offsets_that_somebody_else_committed_have_no_state() -> None:
    found = recover({S: (40, ""), IMP: committed(50, 30)}, BEGIN, ENDS)
    assert found.positions[S] == start(40)
    assert found.losses == {S: "no_state"}


def test_a_topic_created_anew_is_not_joined_again() -> None:
    with pytest.raises(Conflict, match="created anew"):
        recover({S: committed(101, 30)}, BEGIN, ENDS)


def test_the_bound_is_wall_time_scaled_and_event_time_in_a_replay() -> None:
    assert Settings(bound_ms=2000, time_scale=60.0).join_config().bound_us == 120_000_000
    assert Settings(bound_ms=2000, time_scale=0.0).join_config().bound_us == 2_000_000
    with pytest.raises(InvalidInput):
        Settings(window_ms=10**12).join_config()


def test_the_policies_of_the_settings_become_those_of_the_join() -> None:
    assert Settings().join_config() == JoinConfig(window_us=20_000_000, bound_us=2_000_000)
    labels = (
        LabelSettings(kind="click", label=0.25),
        LabelSettings(kind="purchase", window_ms=9_000, priority=2),
    )
    settings = Settings(
        labels=labels, reducer="max", emission="correcting", early_negative_ms=1_500, negative_rate=0.1
    )
    config = settings.join_config()
    assert config.labels == (
        LabelRule(ev.ACTION_KIND_CLICK, 0.25),
        LabelRule(ev.ACTION_KIND_PURCHASE, 1.0, 9_000_000, 2),
    )
    assert (config.reducer, config.emission) == ("max", "correcting")
    assert (config.early_negative_us, config.negative_rate) == (1_500_000, 0.1)


def test_every_kind_of_action_can_be_named() -> None:
    kinds = [name.removeprefix("ACTION_KIND_").lower() for name in ev.ActionKind.keys()[1:]]
    assert kinds == list(get_args(LabelSettings.model_fields["kind"].annotation))
    assert [LabelSettings(kind=kind).rule().kind for kind in kinds] == ev.ActionKind.values()[1:]
    assert [name for name, f in LabelSettings.model_fields.items() if not f.description] == []


def test_label_rules_come_as_json_from_the_environment_and_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECLOOP_LABELS", '[{"kind": "like", "label": 0.5}, {"kind": "click"}]')
    assert load(Settings, []).labels == (LabelSettings(kind="like", label=0.5), LabelSettings(kind="click"))
    argv = ["--labels", '[{"kind": "purchase", "priority": 1}]']
    assert load(Settings, argv).labels == (LabelSettings(kind="purchase", priority=1),)
    with pytest.raises(SystemExit) as ended:
        load(Settings, ["--labels", '[{"kind": "wink", "label": 2}]', "--negative_rate", "0"])
    assert ended.value.code == 2
    text = capsys.readouterr().err
    for field in ("labels.0.kind", "labels.0.label", "negative_rate"):
        assert f"setting {field} =" in text


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("early_negative_us", {"early_negative_ms": 5}),
        ("early_negative_us", {"emission": "correcting", "early_negative_ms": 20_001}),
        ("labels.window_us", {"labels": ({"kind": "click", "window_ms": 20_001},)}),
        ("labels", {"labels": ({"kind": "click"}, {"kind": "click"})}),
        ("labels", {"labels": ()}),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(field: str, bad: dict) -> None:
    with pytest.raises(InvalidInput) as caught:
        Settings(**bad).join_config()
    assert [violation.field for violation in caught.value.violations] == [field]


def test_rows_left_out_by_sampling_say_which_and_carry_no_impression() -> None:
    row = Rejected(Reason.SAMPLED_OUT, IMP, 17, b"", "r", items=2, item_ids=b"12345678" * 2)
    record = outgoing(row, 2, b"k", 0)
    assert (record.topic, record.value, record.key) == ("late-events", b"", b"r")
    headers = dict(record.headers or ())
    assert (headers[topics.HEADER_REASON], headers["items"]) == (b"sampled_out", b"2")
    assert headers["item-ids"] == b"12345678" * 2
