"""Lookup: the rules of the join without snapshots, against the same oracle."""

from __future__ import annotations

from collections import Counter

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
    canonical,
    crash_and_restore,
    feed_all,
    heartbeat,
    impression,
)
from oracles.join_oracle import joined

from rec.events.v1 import events_pb2 as ev
from services.contract.join_config import JoinConfig
from services.contract.join_events import Source
from services.contract.join_lookup import LookupTask
from services.contract.join_output import Output, Sample

CONFIGS = st.sampled_from(
    [
        JoinConfig(window_us=10, bound_us=3),
        JoinConfig(window_us=6, bound_us=2, show_within_us=15, negative_rate=0.5),
        JoinConfig(window_us=10, bound_us=2, emission="correcting", early_negative_us=3),
    ]
)
CASES = st.tuples(CONFIGS, st.one_of(LOGS, BUSY_LOGS))


def mirrored(log: list[bytes]) -> list[bytes]:
    """A log of snapshots as if each shown list had been scored when it was shown."""
    made = []
    for raw in log:
        record = ev.EventRecord.FromString(raw)
        if record.HasField("impression"):
            shown, twin = record.impression, ev.FeatureSnapshot()
            twin.event_id, twin.request_id = shown.event_id, shown.request_id
            twin.occurred_at.CopyFrom(shown.occurred_at)
            twin.item_ids = b"".join(item.to_bytes(8, "little") for item in shown.item_ids)
            twin.scores = bytes(4 * len(shown.item_ids))
            record = ev.EventRecord(snapshot=twin)
        made.append(record.SerializeToString())
    return made


def expected(config: JoinConfig, logs: Logs) -> Counter[tuple]:
    """The oracle's answer about labels, without what it says about the snapshots that are not there."""
    said = joined(config, {**logs, S: mirrored(logs[IMP])})
    return Counter({what: n for what, n in said.items() if what[0] != "rejected" or what[2] != int(S)})


def canonicals(outputs: list[Output]) -> Counter[tuple]:
    return Counter(map(canonical, outputs))


@settings(max_examples=150, deadline=None)
@given(CASES, ORDERS)
def test_every_interleaving_of_two_inputs_says_what_the_oracle_says(
    case: tuple[JoinConfig, Logs], order: list[Source]
) -> None:
    config, logs = case[0], {**case[1], S: []}
    assert canonicals(feed_all(LookupTask(config), logs, order)) == expected(config, logs)


@settings(max_examples=150, deadline=None)
@given(CASES, ORDERS, ORDERS, st.sets(st.integers(0, 30), max_size=4))
def test_restored_at_any_commit_it_goes_on_as_if_it_had_never_stopped(
    case: tuple[JoinConfig, Logs], order: list[Source], replay: list[Source], crashes: set[int]
) -> None:
    config, logs = case[0], {**case[1], S: []}
    task, out, at = LookupTask(config), [], {IMP: 0, A: 0}
    order = [source for source in order if source is not S]
    for step, source in enumerate((*order, *(s for s in (IMP, A) for _ in logs[s]))):
        if step in crashes:
            task = crash_and_restore(task, config, logs, replay)
            assert isinstance(task, LookupTask)
        if at[source] < len(logs[source]):
            out += task.feed(source, at[source], logs[source][at[source]])
            at[source] += 1
    assert canonicals(out) == expected(config, logs)


def test_a_sample_has_no_model_no_scores_and_the_time_of_its_impression() -> None:
    task = LookupTask(JoinConfig(window_us=10, bound_us=3))
    task.feed(IMP, 0, impression("r", 104, [3, 1], positions=[7, 9]))
    (positive,) = task.feed(A, 0, action("r", 106, 1))
    assert isinstance(positive, Sample)
    assert task.clock_us == 106
    task.feed(A, 1, heartbeat(200))
    (negative,) = task.feed(IMP, 1, heartbeat(200))
    assert isinstance(negative, Sample)
    message = negative.message
    assert (message.item_ids, message.positions) == ((3).to_bytes(8, "little"), (7).to_bytes(4, "little"))
    assert (message.scores, message.item_features, message.user_id) == (bytes(4), b"", 9)
    assert not message.HasField("model") and not message.HasField("scored_at")
    assert message.occurred_at == message.impressed_at
    assert (task.watermark_us, set(task.positions())) == (197, {IMP, A})
