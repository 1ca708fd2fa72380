"""The join, case by case. Window 10, bound 3, times are microseconds."""

from __future__ import annotations

import struct

import pytest
from oracles.join_logs import (
    IMP,
    A,
    Logs,
    S,
    action,
    barrier,
    canonical,
    crash_and_restore,
    feed_all,
    floats,
    heartbeat,
    impression,
    snapshot,
)

from rec.events.v1 import events_pb2 as ev
from services.contract.errors import Conflict, InvalidInput, MalformedRecord
from services.contract.join import MAX_PENDING_BARRIERS, JoinTask, OtherRules
from services.contract.join_config import MAX_PRIORITY, MAX_WINDOW_US, JoinConfig, LabelRule
from services.contract.join_events import SOURCES, Source
from services.contract.join_output import BarrierPassed, Output, Reason, Rejected, Sample
from services.contract.join_position import MAX_BYTES, Position, decode_position, encode_position, start

CONFIG = JoinConfig(window_us=10, bound_us=3)
# Everything has passed when each input has seen this.
END = {source: [heartbeat(1000)] for source in SOURCES}


def run(logs: Logs, config: JoinConfig = CONFIG) -> list[Output]:
    return feed_all(JoinTask(config), {s: logs.get(s, []) for s in SOURCES}, [])


def closed(logs: Logs, config: JoinConfig = CONFIG) -> list[Output]:
    return run({s: [*logs.get(s, []), *END[s]] for s in SOURCES}, config)


def reasons(outputs: list[Output]) -> list[tuple[Reason, Source, int]]:
    return [(o.reason, o.source, o.items) for o in outputs if isinstance(o, Rejected)]


def labels(outputs: list[Output]) -> dict[int, float]:
    found: dict[int, float] = {}
    for o in outputs:
        if isinstance(o, Sample):
            ids = struct.unpack(f"<{o.rows}Q", o.message.item_ids)
            assert not found.keys() & set(ids)
            found.update(zip(ids, floats(o.message.labels), strict=True))
    return found


BOTH: Logs = {S: [snapshot("r", 100)], IMP: [impression("r", 104)]}


def test_a_click_is_said_at_once_and_the_rest_when_the_window_has_passed() -> None:
    task = JoinTask(CONFIG)
    assert task.feed(S, 0, BOTH[S][0]) == []
    assert task.feed(IMP, 0, BOTH[IMP][0]) == []
    (positive,) = task.feed(A, 0, action("r", 106, item=2))
    assert isinstance(positive, Sample)
    assert canonical(positive)[4:] == (
        106,
        ((2, 1.0, 1, pytest.approx(0.02), struct.pack("<2f", 2, 100), 0, 1.0),),
    )
    assert task.feed(S, 1, heartbeat(1000)) == []
    assert task.feed(IMP, 1, heartbeat(1000)) == []
    assert task.feed(A, 1, heartbeat(117)) == []
    (negative,) = task.feed(A, 2, heartbeat(118))
    assert isinstance(negative, Sample)
    assert labels([negative]) == {1: 0.0, 3: 0.0}
    assert not negative.message.HasField("acted_at")
    assert task.open_impressions == 0


def test_a_sample_carries_what_was_scored_and_when() -> None:
    (sample,) = [o for o in closed(BOTH) if isinstance(o, Sample)]
    m = sample.message
    assert (m.request_id, m.user_id, m.schema_hash, m.arm, m.sample_rate) == ("r", 9, 77, "online", 1.0)
    assert (m.model.lineage.generation, m.model.lineage.policy, m.model.sequence) == (1, "online", 5)
    assert m.user_features == struct.pack("<2f", 100, 9)
    assert m.label_versions == bytes(12)
    stamps = (m.occurred_at, m.scored_at, m.impressed_at)
    assert [stamp.nanos // 1000 for stamp in stamps] == [100, 107, 104]
    assert not m.HasField("joined_at")


@pytest.mark.parametrize(
    ("clicked_at", "labelled"), [(100, False), (101, True), (104, True), (114, True), (115, False)]
)
def test_the_window_includes_its_end_and_the_skew_before_the_impression(
    clicked_at: int, labelled: bool
) -> None:
    assert (labels(closed({**BOTH, A: [action("r", clicked_at)]}))[1] == 1.0) is labelled


def test_a_click_at_the_very_end_of_the_window_is_in_time_even_at_the_last_watermark() -> None:
    task = JoinTask(CONFIG)
    for source, raw in ((S, BOTH[S][0]), (IMP, BOTH[IMP][0])):
        task.feed(source, 0, raw)
        task.feed(source, 1, heartbeat(1000))
    # The watermark of actions is exactly impression + window.
    task.feed(A, 0, heartbeat(117))
    assert labels(task.feed(A, 1, action("r", 114))) == {1: 1.0}


CASES = [
    ("late", {**BOTH, A: [heartbeat(110), action("r", 106)]}, (Reason.LATE, A, 0)),
    ("after the window", {**BOTH, A: [action("r", 115)]}, (Reason.AFTER_WINDOW, A, 0)),
    ("no impression", {A: [action("x", 106)]}, (Reason.NO_IMPRESSION, A, 0)),
    ("not impressed", {**BOTH, A: [action("r", 106, item=7)]}, (Reason.NOT_IMPRESSED, A, 0)),
    (
        "second click on an item",
        {**BOTH, A: [action("r", 106), action("r", 107, event_id="again")]},
        (Reason.ALREADY_LABELLED, A, 0),
    ),
    ("a like", {**BOTH, A: [action("r", 106, kind=ev.ACTION_KIND_LIKE)]}, (Reason.NO_LABEL_RULE, A, 0)),
    ("snapshot lost", {IMP: BOTH[IMP]}, (Reason.SNAPSHOT_LOST, IMP, 3)),
    ("unscored", {IMP: [impression("r", 104, unscored=True)]}, (Reason.UNSCORED, IMP, 3)),
    (
        "shown but not scored",
        {S: BOTH[S], IMP: [impression("r", 104, items=(1, 8, 9))]},
        (Reason.NOT_IN_SNAPSHOT, IMP, 2),
    ),
    (
        "two impressions",
        {S: BOTH[S], IMP: [BOTH[IMP][0], impression("r", 105, items=(1, 2), event_id="two")]},
        (Reason.SECOND_IMPRESSION, IMP, 2),
    ),
    (
        "two snapshots",
        {S: [BOTH[S][0], snapshot("r", 101, event_id="two")], IMP: BOTH[IMP]},
        (Reason.SECOND_SNAPSHOT, S, 0),
    ),
    ("late impression", {S: BOTH[S], IMP: [heartbeat(108), BOTH[IMP][0]]}, (Reason.LATE, IMP, 3)),
    ("malformed", {A: [b"?"]}, (Reason.MALFORMED, A, 0)),
]


@pytest.mark.parametrize(("logs", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_does_not_become_a_sample_has_one_reason(logs: Logs, reason: tuple) -> None:
    outputs = closed(logs)
    assert reasons(outputs) == [reason]
    (row,) = [o for o in outputs if isinstance(o, Rejected)]
    assert row.raw == logs[row.source][row.offset]
    assert dict(row.headers())["items"] == str(row.items).encode()


def test_actions_on_lost_unscored_and_unknown_items_share_their_impressions_reason() -> None:
    lost = closed({IMP: BOTH[IMP], A: [action("r", 106)]})
    assert (Reason.SNAPSHOT_LOST, A, 0) in reasons(lost)
    unscored = closed({IMP: [impression("r", 104, unscored=True)], A: [action("r", 106)]})
    assert (Reason.UNSCORED, A, 0) in reasons(unscored)
    shown = {S: BOTH[S], IMP: [impression("r", 104, items=(1, 8))], A: [action("r", 106, item=8)]}
    rejected = [o for o in closed(shown) if isinstance(o, Rejected)]
    assert [o.reason for o in rejected] == [Reason.NOT_IN_SNAPSHOT] * 2
    assert rejected[0].item_ids == struct.pack("<Q", 8)


def test_repeats_are_suppressed_and_counted_even_when_they_come_late() -> None:
    logs = {s: [*BOTH.get(s, [action("r", 106)]) * 2, heartbeat(118)] for s in SOURCES}
    logs = {s: [*logs[s], logs[s][0]] for s in SOURCES}
    task = JoinTask(CONFIG)
    outputs = feed_all(task, {s: [*logs[s], *END[s]] for s in SOURCES}, [])
    assert labels(outputs) == {1: 1.0, 2: 0.0, 3: 0.0}
    assert reasons(outputs) == []
    assert task.stats.repeats == {"snapshots": 2, "impressions": 2, "actions": 2}


def test_served_but_never_shown_is_counted_and_is_no_late_event() -> None:
    task = JoinTask(CONFIG)
    assert feed_all(task, {S: [*BOTH[S], *END[S]], IMP: END[IMP], A: END[A]}, []) == []
    assert task.not_shown == 1
    assert task.held_events == task.held_bytes == 0


def test_a_barrier_closes_earlier_windows_at_once_and_comes_after_their_samples() -> None:
    promise = {s: [*BOTH.get(s, []), barrier("b", 105)] for s in SOURCES}
    outputs = run(promise)
    assert labels(outputs) == {1: 0.0, 2: 0.0, 3: 0.0}
    assert outputs[-1] == BarrierPassed("b", 105)
    broken = {**promise, A: [barrier("b", 105), action("r", 106), action("r", 104, event_id="x")]}
    assert [r[0] for r in reasons(run(broken))] == [Reason.AFTER_WINDOW, Reason.LATE]


def test_a_barrier_leaves_later_windows_open_and_gives_up_earlier_lone_actions() -> None:
    task = JoinTask(CONFIG)
    logs = {s: [*BOTH.get(s, [action("lone", 103)]), barrier("b", 104)] for s in SOURCES}
    assert reasons(feed_all(task, logs, [])) == [(Reason.NO_IMPRESSION, A, 0)]
    assert task.open_impressions == 1


def test_a_repeated_barrier_passes_once_and_a_lonely_one_never() -> None:
    logs = {s: [barrier("b", 5), barrier("b", 5)] for s in SOURCES}
    assert run(logs) == [BarrierPassed("b", 5)]
    assert run({S: logs[S], IMP: logs[IMP]}) == []


def test_barriers_under_way_are_bounded_and_the_dropped_counted() -> None:
    task = JoinTask(CONFIG)
    for offset in range(MAX_PENDING_BARRIERS + 2):
        task.feed(S, offset, barrier(f"b{offset}", offset))
    assert task.stats.barriers_dropped == 2


def test_another_label_policy_labels_other_kinds_within_their_own_windows() -> None:
    config = JoinConfig(window_us=10, bound_us=3, labels=(LabelRule(ev.ACTION_KIND_LIKE, 0.5, window_us=4),))
    like = action("r", 108, kind=ev.ACTION_KIND_LIKE)
    assert labels(closed({**BOTH, A: [like]}, config))[1] == 0.5
    tardy = action("r", 109, kind=ev.ACTION_KIND_LIKE)
    assert reasons(closed({**BOTH, A: [tardy, action("r", 109)]}, config)) == [
        (Reason.AFTER_WINDOW, A, 0),
        (Reason.NO_LABEL_RULE, A, 0),
    ]


def test_positions_of_the_impression_travel_on_the_samples() -> None:
    logs = {S: BOTH[S], IMP: [impression("r", 104, items=(3, 1), positions=(7, 0))]}
    (sample,) = [o for o in closed(logs) if isinstance(o, Sample)]
    assert struct.unpack("<2I", sample.message.positions) == (7, 0)


def test_memory_is_forgotten_when_nothing_can_refer_to_it() -> None:
    task = JoinTask(CONFIG)
    feed_all(task, {**BOTH, A: [action("r", 106)]}, [])
    held_until = 106 + CONFIG.memory_us + CONFIG.bound_us
    for source in SOURCES:
        task.feed(source, 1, heartbeat(held_until))
    assert task.held_events > 0
    for source in SOURCES:
        task.feed(source, 2, heartbeat(held_until + 1))
    assert task.held_events == task.held_bytes == 0
    assert task.low_water() == dict.fromkeys(SOURCES, (3, held_until + 1))


def test_a_state_built_under_other_rules_is_not_continued() -> None:
    task = JoinTask(CONFIG)
    task.feed(IMP, 0, BOTH[IMP][0])
    other = JoinConfig(window_us=20, bound_us=3)
    with pytest.raises(OtherRules, match="built with w10b3"):
        JoinTask.restore(other, task.positions())
    empty = JoinTask(CONFIG)
    assert JoinTask.restore(other, empty.positions()).config is other


def test_offsets_must_grow_and_a_replay_says_nothing_and_ends_where_it_must() -> None:
    task = JoinTask(CONFIG)
    logs: Logs = {s: [*BOTH.get(s, []), heartbeat(105)] for s in SOURCES}
    feed_all(task, logs, [])
    with pytest.raises(Conflict):
        task.feed(S, 1, heartbeat(106))
    new = JoinTask.restore(CONFIG, task.positions())
    assert new.replaying
    with pytest.raises(Conflict):
        new.positions()
    with pytest.raises(Conflict):
        new.feed(S, 2, heartbeat(106))
    restored = crash_and_restore(task, CONFIG, logs, [])
    assert restored.positions() == task.positions()
    assert labels(restored.feed(A, 1, action("r", 106))) == {1: 1.0}


def test_a_position_survives_the_metadata_of_a_commit() -> None:
    barriers = ("ü" * 128,) * 4
    widest = JoinConfig(
        MAX_WINDOW_US,
        MAX_WINDOW_US,
        tuple(
            LabelRule(k, 1 / 3 - 1e-9 * k, MAX_WINDOW_US, MAX_PRIORITY) for k in ev.ActionKind.values()[1:]
        ),
        MAX_WINDOW_US,
        reducer="max",
        emission="correcting",
        early_negative_us=MAX_WINDOW_US,
        negative_rate=1 / 3,
    )
    position = Position(70, 40, 10**15, -5, 3, barriers, widest.fingerprint())
    text = encode_position(position)
    assert len(text.encode()) < MAX_BYTES
    assert decode_position(70, text) == position
    for bad in ("", "{}", "[]", '{"v":2}', encode_position(start(80))):
        with pytest.raises(MalformedRecord):
            decode_position(70, bad)


def _impression_with(**changes: object) -> bytes:
    record = ev.EventRecord.FromString(impression("r", 104))
    for name, value in changes.items():
        setattr(record.impression, name, value)
    return record.SerializeToString()


def _snapshot_with(**changes: object) -> bytes:
    record = ev.EventRecord.FromString(snapshot("r", 104))
    for name, value in changes.items():
        setattr(record.snapshot, name, value)
    return record.SerializeToString()


@pytest.mark.parametrize(
    ("source", "raw", "items"),
    [
        (S, b"", 0),
        (S, b"\xff\xff", 0),
        (S, impression("r", 1), 3),
        (A, heartbeat(1)[:-2], 0),
        (IMP, ev.EventRecord(impression=ev.Impression(item_ids=[1, 2])).SerializeToString(), 2),
        (IMP, _impression_with(request_id=""), 3),
        (IMP, _impression_with(request_id="r" * 65), 3),
        (IMP, _impression_with(event_id=""), 3),
        (IMP, impression("r", 1, items=(1, 1)), 2),
        (IMP, impression("r", 1, items=()), 0),
        (IMP, impression("r", 1, positions=(1,)), 3),
        (S, _snapshot_with(item_ids=b"1234567"), 0),
        (S, _snapshot_with(scores=b"1234"), 0),
        (S, _snapshot_with(item_features=b"1234"), 0),
        (S, _snapshot_with(user_features=b"123"), 0),
        (A, action("r", 1, kind=0), 0),
        (A, action("r", 1, kind=99), 0),
        (A, barrier("", 1), 0),
        (A, barrier("b" * 200, 1), 0),
    ],
)
def test_a_malformed_record_is_rejected_with_its_items_and_moves_nothing(
    source: Source, raw: bytes, items: int
) -> None:
    task = JoinTask(CONFIG)
    (row,) = task.feed(source, 0, raw)
    assert isinstance(row, Rejected)
    assert (row.reason, row.items, row.raw) == (Reason.MALFORMED, items, raw)
    assert row.detail
    assert task.low_water()[source][0] == 1
    assert task.held_events == 0


@pytest.mark.parametrize(
    "bad",
    [
        {"window_us": 0},
        {"bound_us": -1},
        {"show_within_us": 0},
        {"max_held_events": 0},
        {"max_items": 0},
        {"labels": ()},
        {"labels": (LabelRule(1), LabelRule(1))},
        {"labels": (LabelRule(0),)},
        {"labels": (LabelRule(1, 0.0),)},
        {"labels": (LabelRule(1, window_us=11),)},
    ],
)
def test_contradictions_die_in_the_constructor(bad: dict) -> None:
    with pytest.raises(InvalidInput):
        JoinConfig(**{"window_us": 10, "bound_us": 3, **bad})


def test_all_contradictions_are_named_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        JoinConfig(window_us=0, bound_us=-1, labels=())
    assert {v.field for v in caught.value.violations} == {"window_us", "bound_us", "labels"}


def test_a_full_state_lets_the_oldest_go_undecided() -> None:
    task = JoinTask(JoinConfig(window_us=10, bound_us=3, max_held_events=2))
    out = feed_all(task, {**BOTH, A: [action("r", 104, item=2), action("r", 106)]}, [])
    assert task.stats.evicted_events > 0
    assert (Reason.EVICTED, IMP, 2) in reasons(out)
    assert labels(out) == {2: 1.0}


def test_a_snapshot_behind_a_barrier_is_not_that_of_an_impression_which_the_barrier_closed() -> None:
    logs = {
        S: [barrier("b", 105), snapshot("r", 105)],
        IMP: [impression("r", 104), barrier("b", 105)],
        A: [barrier("b", 105)],
    }
    for order in ([S, S, A, IMP, IMP], [IMP, IMP, A, S, S]):
        assert reasons(feed_all(JoinTask(CONFIG), logs, order)) == [(Reason.SNAPSHOT_LOST, IMP, 3)]


def test_the_snapshot_of_an_open_impression_is_replayed_however_old_it_is() -> None:
    # The watermark (118) is past the snapshot's own memory (116), the window is open until 119.
    logs = {s: [heartbeat(121)] for s in SOURCES}
    logs[S].insert(0, snapshot("r", 100))
    logs[IMP].insert(0, impression("r", 109))
    task = JoinTask(CONFIG)
    assert feed_all(task, logs, []) == []
    restored = crash_and_restore(task, CONFIG, logs, [])
    assert labels(restored.feed(A, 1, action("r", 119))) == {1: 1.0}
