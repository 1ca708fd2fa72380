"""The join against the oracle, on random logs in random interleavings, with crashes and with a full state."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.join_logs import (
    BUSY_LOGS,
    LOGS,
    ORDERS,
    Logs,
    canonical,
    crash_and_restore,
    feed_all,
    heartbeat,
    rows_of,
)
from oracles.join_oracle import joined

from rec.events.v1 import events_pb2 as ev
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig, LabelRule
from services.contract.join_events import SOURCES, Source
from services.contract.join_output import Output, Rejected

PLAIN = st.sampled_from(
    [
        JoinConfig(window_us=10, bound_us=3),
        JoinConfig(window_us=10, bound_us=0),
        JoinConfig(window_us=6, bound_us=2, show_within_us=15),
        JoinConfig(
            window_us=12,
            bound_us=4,
            show_within_us=3,
            labels=(LabelRule(ev.ACTION_KIND_CLICK), LabelRule(ev.ACTION_KIND_LIKE, 0.5, window_us=5)),
        ),
    ]
)


@st.composite
def policies(draw: st.DrawFn) -> JoinConfig:
    """Any mode: emission, reducer, priorities, windows per kind, sampling."""
    window_us = draw(st.sampled_from([6, 10, 14]))
    correcting = draw(st.sampled_from([True, True, False]))
    labels = tuple(
        LabelRule(
            kind,
            draw(st.sampled_from([0.125, 0.25, 0.5, 1.0])),
            draw(st.sampled_from([None, None, 4, 6])),
            draw(st.sampled_from([0, 0, 1, 2])),
        )
        for kind in draw(st.sampled_from([ALL_KINDS, ALL_KINDS, ALL_KINDS, ALL_KINDS[1:]]))
    )
    return JoinConfig(
        window_us=window_us,
        bound_us=draw(st.sampled_from([0, 2, 4])),
        labels=labels,
        show_within_us=draw(st.sampled_from([None, 3, 15])),
        reducer=draw(st.sampled_from(["max", "sum", "any"])),
        emission="correcting" if correcting else "final",
        early_negative_us=draw(st.sampled_from([0, 1, 3, window_us])) if correcting else 0,
        negative_rate=draw(st.sampled_from([1.0, 1.0, 0.5, 1e-6])),
    )


ALL_KINDS = (ev.ACTION_KIND_CLICK, ev.ACTION_KIND_LIKE, ev.ACTION_KIND_PURCHASE)
# Every rule of belonging under the plain policies, and every policy where events mostly belong.
CASES = st.one_of(
    st.tuples(PLAIN, LOGS), st.tuples(policies(), LOGS), *[st.tuples(policies(), BUSY_LOGS)] * 2
)


def canonicals(outputs: list[Output]) -> Counter[tuple]:
    return Counter(canonical(output) for output in outputs)


def prefix(logs: Logs, order: list[Source]) -> Logs:
    return {source: logs[source][: order.count(source)] for source in SOURCES}


@settings(max_examples=300, deadline=None)
@given(CASES, ORDERS, ORDERS)
def test_every_interleaving_says_what_the_oracle_says(
    case: tuple[JoinConfig, Logs], order: list[Source], stop: list[Source]
) -> None:
    config, logs = case
    said = canonicals(feed_all(JoinTask(config), logs, order))
    assert said == joined(config, logs)
    part = prefix(logs, stop)
    assert canonicals(feed_all(JoinTask(config), part, stop)) == joined(config, part)


@settings(max_examples=300, deadline=None)
@given(CASES, ORDERS, ORDERS, st.sets(st.integers(0, 40), max_size=5))
def test_a_task_restored_at_any_commit_goes_on_as_if_it_had_never_stopped(
    case: tuple[JoinConfig, Logs], order: list[Source], replay: list[Source], crashes: set[int]
) -> None:
    config, logs = case
    task, out = JoinTask(config), []
    at = dict.fromkeys(SOURCES, 0)
    for step, source in enumerate((*order, *(s for s in SOURCES for _ in logs[s]))):
        if step in crashes:
            task = crash_and_restore(task, config, logs, replay)
        if at[source] < len(logs[source]):
            out += task.feed(source, at[source], logs[source][at[source]])
            at[source] += 1
    assert canonicals(out) == joined(config, logs)


CRASHES = st.sets(st.integers(0, 40), max_size=3)


@settings(max_examples=150, deadline=None)
@given(CASES, ORDERS, st.integers(1, 12), st.tuples(CRASHES, ORDERS))
def test_a_full_state_gives_up_with_a_reason_and_never_says_a_row_twice(
    case: tuple[JoinConfig, Logs], order: list[Source], most: int, crash: tuple[set[int], list[Source]]
) -> None:
    (rules, logs), (crashes, replay) = case, crash
    # One impression per request: what two of them share is another rule's matter. And everything closes.
    logs = {**logs, Source.IMPRESSIONS: first_of_each_request(logs[Source.IMPRESSIONS])}
    logs = {source: [*log, heartbeat(1000)] for source, log in logs.items()}
    config = replace(rules, max_held_events=most)
    task, out = JoinTask(config), []
    at = dict.fromkeys(SOURCES, 0)
    for step, source in enumerate((*order, *(s for s in SOURCES for _ in logs[s]))):
        if step in crashes:
            task = crash_and_restore(task, config, logs, replay)
        if at[source] < len(logs[source]):
            out += task.feed(source, at[source], logs[source][at[source]])
            at[source] += 1
            assert task.held_events <= most
    rows = rows_of(out)
    assert not [row for row, count in rows.items() if count > 1]
    assert not [row for row in rows if row[2] and (*row[:2], row[2] - 1) not in rows], "a version is missing"
    for offset, raw in enumerate(logs[Source.IMPRESSIONS]):
        record = ev.EventRecord.FromString(raw)
        if record.WhichOneof("record") != "impression":
            continue
        shown = record.impression
        said = sum(rows[shown.request_id, item, 0] for item in shown.item_ids)
        said += sum(
            o.items
            for o in out
            if isinstance(o, Rejected) and o.source is Source.IMPRESSIONS and o.offset == offset
        )
        assert said == len(shown.item_ids)
    explained = [(o.source, o.offset) for o in out if isinstance(o, Rejected) and not o.item_ids]
    # After a crash an action on a given-up impression may be explained once more; an item never is.
    assert crashes or len(explained) == len(set(explained))
    assert task.held_events == 0


def first_of_each_request(log: list[bytes]) -> list[bytes]:
    seen: set[str] = set()
    kept = []
    for raw in log:
        record = ev.EventRecord.FromString(raw)
        request = record.impression.request_id
        if record.WhichOneof("record") == "impression" and request in seen:
            continue
        seen.add(request)
        kept.append(raw)
    return kept
