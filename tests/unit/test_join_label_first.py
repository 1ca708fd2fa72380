"""Labels first, snapshots after: the same set as every other order of reading, in less memory."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.join_logs import (
    BUSY_LOGS,
    IMP,
    LOGS,
    ORDERS,
    A,
    Logs,
    S,
    action,
    barrier,
    canonical,
    crash_and_restore,
    feed_all,
    heartbeat,
    impression,
    labels_first,
    snapshot,
)
from oracles.join_oracle import joined

from rec.events.v1 import events_pb2 as ev
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig, LabelRule
from services.contract.join_events import SOURCES, Source
from services.contract.join_label_first import LabelFirstTask
from services.contract.join_output import Output, Reason, Rejected, Sample
from services.contract.join_position import Position

PLAIN = JoinConfig(window_us=10, bound_us=3)
CONFIGS = st.sampled_from(
    [
        PLAIN,
        JoinConfig(window_us=10, bound_us=0),
        JoinConfig(window_us=6, bound_us=2, show_within_us=15),
        JoinConfig(window_us=12, bound_us=4, show_within_us=3, negative_rate=0.5),
        JoinConfig(
            window_us=10,
            bound_us=2,
            labels=(LabelRule(ev.ACTION_KIND_CLICK, 0.5), LabelRule(ev.ACTION_KIND_LIKE, 1.0, priority=1)),
            reducer="max",
        ),
        JoinConfig(
            window_us=10,
            bound_us=2,
            labels=(LabelRule(ev.ACTION_KIND_CLICK, 0.5), LabelRule(ev.ACTION_KIND_PURCHASE, 1.0)),
            reducer="sum",
            emission="correcting",
            early_negative_us=3,
            negative_rate=0.5,
        ),
    ]
)
CASES = st.tuples(CONFIGS, st.one_of(LOGS, BUSY_LOGS))


def canonicals(outputs: list[Output]) -> Counter[tuple]:
    return Counter(canonical(output) for output in outputs)


def closed(logs: Logs) -> Logs:
    """With heartbeats behind which nothing is open."""
    return {source: [*log, heartbeat(1000)] for source, log in logs.items()}


@settings(max_examples=150, deadline=None)
@given(CASES, ORDERS)
def test_labels_first_says_in_the_end_what_the_oracle_says(
    case: tuple[JoinConfig, Logs], order: list[Source]
) -> None:
    config, logs = case[0], closed(case[1])
    task = LabelFirstTask(config)
    said = [output for outputs in labels_first(task, logs, order) for output in outputs]
    assert canonicals(said) == joined(config, logs)
    assert (task.held_events, task.held_bytes) == (0, 0)


@settings(max_examples=150, deadline=None)
@given(CASES, ORDERS, ORDERS)
def test_what_it_has_said_is_a_function_of_the_three_prefixes(
    case: tuple[JoinConfig, Logs], order: list[Source], other: list[Source]
) -> None:
    config, logs = case
    part = {source: logs[source][: order.count(source)] for source in SOURCES}
    one, two = LabelFirstTask(config), LabelFirstTask(config)
    said = [canonicals(feed_all(one, part, order)), canonicals(feed_all(two, part, other))]
    assert said[0] == said[1]
    assert one.not_shown == two.not_shown
    # Never less than the stream has said by then, but for what a later record may still change.
    assert canonicals(feed_all(JoinTask(config), part, other)) <= said[0]


@settings(max_examples=150, deadline=None)
@given(CASES, ORDERS, ORDERS, st.sets(st.integers(0, 40), max_size=5))
def test_restored_at_any_commit_it_goes_on_as_if_it_had_never_stopped(
    case: tuple[JoinConfig, Logs], order: list[Source], replay: list[Source], crashes: set[int]
) -> None:
    config, logs = case[0], closed(case[1])
    at, out, not_shown = dict.fromkeys(SOURCES, 0), [], 0
    task: JoinTask = LabelFirstTask(config)
    for step, source in enumerate((*order, *(s for s in (IMP, A, S) for _ in logs[s]))):
        if step in crashes:
            not_shown += task.not_shown
            task = crash_and_restore(task, config, logs, replay)
        if at[source] < len(logs[source]):
            out += task.feed(source, at[source], logs[source][at[source]])
            at[source] += 1
    assert canonicals(out) == joined(config, logs)
    stream = JoinTask(config)
    feed_all(stream, logs, order)
    assert not_shown + task.not_shown == stream.not_shown


def test_a_snapshot_is_due_when_the_last_label_of_the_last_possible_impression_is_in() -> None:
    task = LabelFirstTask(PLAIN)
    due_us = 100 + PLAIN.show_us + PLAIN.window_us
    task.feed(IMP, 0, heartbeat(due_us + PLAIN.bound_us + 1))
    assert not task.labels_in(100), "actions have not spoken"
    task.feed(A, 0, heartbeat(due_us + PLAIN.bound_us))
    assert not task.labels_in(100), "a click at the very end of the window may still come"
    task.feed(A, 1, heartbeat(due_us + PLAIN.bound_us + 1))
    assert task.labels_in(100)
    assert not task.labels_in(101)


def test_a_barrier_on_both_label_inputs_makes_what_stands_before_it_due() -> None:
    task = LabelFirstTask(PLAIN)
    task.feed(IMP, 0, barrier("b", 50))
    assert not task.labels_in(40)
    task.feed(A, 0, barrier("b", 50))
    assert task.labels_in(49)
    assert not task.labels_in(50)


def test_positives_and_negatives_are_said_when_the_snapshot_comes_and_nothing_waits_for_its_clock() -> None:
    task = LabelFirstTask(PLAIN)
    task.feed(IMP, 0, impression("r", 104))
    task.feed(A, 0, action("r", 106))
    for source, offset in ((IMP, 1), (A, 1)):
        task.feed(source, offset, heartbeat(200))
    said = task.feed(S, 0, snapshot("r", 100))
    assert [(o.rows, o.positive) for o in said if isinstance(o, Sample)] == [(1, True), (2, False)]
    assert task.watermark_us < 104
    assert (task.held_bytes, task.open_impressions) == (0, 0)


def test_a_snapshot_that_nobody_saw_leaves_its_tombstone_only() -> None:
    task = LabelFirstTask(PLAIN)
    for source in (IMP, A):
        task.feed(source, 0, heartbeat(200))
    assert task.feed(S, 0, snapshot("r", 100)) == []
    assert (task.not_shown, task.held_bytes, task.held_events) == (1, 0, 1)
    task.feed(S, 1, snapshot("r", 100))
    assert task.stats.repeats["snapshots"] == 1


def slim(raw: bytes) -> bytes:
    """The snapshot as if its batch columns stood elsewhere."""
    record = ev.EventRecord.FromString(raw)
    record.snapshot.slim.item_features_hash = 1
    return record.SerializeToString()


GONE = {S: [slim(snapshot("r", 100))], IMP: [impression("r", 104, [1, 2])], A: [action("r", 106)]}


def test_a_snapshot_whose_features_are_lost_is_a_dead_letter_and_its_items_are_snapshot_lost() -> None:
    gone = ["gone"]

    class Losing(LabelFirstTask):
        def __init__(self, config: JoinConfig, positions: Mapping[Source, Position] | None = None) -> None:
            super().__init__(config, positions, lambda snapshot: gone[0] if gone else None)

    task = Losing(PLAIN)
    logs = {source: [*GONE[source], heartbeat(200)] for source in (IMP, A)}
    assert feed_all(task, {**logs, S: []}, []) == []
    said = task.feed(S, 0, GONE[S][0])
    assert all(isinstance(o, Rejected) for o in said)
    found = {(o.reason, o.source, o.items): o for o in said if isinstance(o, Rejected)}
    assert set(found) == {
        (Reason.FEATURES_LOST, S, 0),
        (Reason.SNAPSHOT_LOST, IMP, 2),
        (Reason.SNAPSHOT_LOST, A, 0),
    }
    dead = found[Reason.FEATURES_LOST, S, 0]
    assert (dead.raw, dead.detail) == (GONE[S][0], "gone")
    # A replay finds it closed, though the features are back.
    gone.clear()
    back = crash_and_restore(task, PLAIN, {**logs, S: GONE[S]}, [S, A, IMP])
    assert back.feed(S, 1, heartbeat(1000)) == []


def test_the_state_of_another_scheme_is_refused() -> None:
    stream = JoinConfig(window_us=10, bound_us=3)
    schemes = [JoinConfig(window_us=10, bound_us=3, scheme=s) for s in ("stream", "label-first", "lookup")]
    assert schemes[0].fingerprint() == stream.fingerprint()
    assert len({config.fingerprint() for config in schemes}) == 3


def test_it_holds_a_fraction_of_what_the_stream_holds() -> None:
    """A hundred served items, ten of them shown, a third of the lists never."""
    config = JoinConfig(window_us=2_000_000, bound_us=300_000)
    records = ordinary(2000)
    logs = {source: [raw for _, one, raw in records if one is source] for source in SOURCES}
    order = [source for _, source, _ in records]
    stream, first = JoinTask(config), LabelFirstTask(config)
    at, said = dict.fromkeys(SOURCES, 0), [Counter[tuple | bytes](), Counter[tuple | bytes]()]
    most = Counter[str]()
    for source in order:
        said[0] += as_bytes(stream.feed(source, at[source], logs[source][at[source]]))
        at[source] += 1
        most["stream"] = max(most["stream"], stream.held_bytes)
    for outputs in labels_first(first, logs, order):
        said[1] += as_bytes(outputs)
        most["label-first"] = max(most["label-first"], first.held_bytes)
    assert said[0] == said[1]
    assert most["label-first"] * 20 < most["stream"], most


def as_bytes(outputs: list[Output]) -> Counter[tuple | bytes]:
    return Counter(o.message.SerializeToString() if isinstance(o, Sample) else canonical(o) for o in outputs)


def ordinary(requests: int) -> list[tuple[int, Source, bytes]]:
    """(time, input, record) in order of time: a request every 10 ms."""
    rng = random.Random(3)
    records = [(10**9, source, heartbeat(10**9)) for source in SOURCES]
    for k in range(requests):
        at, items = 1 + k * 10_000, rng.sample(range(1, 10**6), 100)
        record = ev.EventRecord.FromString(snapshot(f"r{k}", at, items))
        record.snapshot.item_features = rng.randbytes(100 * 64)
        record.snapshot.user_features = rng.randbytes(64)
        records.append((at, S, record.SerializeToString()))
        if k % 3:
            shown_at = at + rng.randrange(300_000)
            records.append((shown_at, IMP, impression(f"r{k}", shown_at, items[:10])))
            if rng.random() < 0.3:
                acted_at = shown_at + rng.randrange(1_500_000)
                records.append((acted_at, A, action(f"r{k}", acted_at, rng.choice(items[:10]))))
    return sorted(records, key=lambda record: record[0])
