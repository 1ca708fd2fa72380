"""What the chaos run counts: nothing for an honest host, something for every way to be dishonest."""

from __future__ import annotations

import pytest
from oracles.join_logs import IMP, A, S, action, barrier, impression, snapshot

from local.chaos_check import (
    INPUTS,
    Difference,
    LogRecord,
    aborted,
    compare,
    expected,
    found,
)
from local.chaos_result import Round, failures, plan, result, together
from rec.events.v1 import events_pb2 as ev
from services.contract import topics
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.join_events import SOURCES
from services.joiner.outgoing import outgoing

MS = 1000
AT = 10**15
CONFIG = JoinConfig(window_us=1_000 * MS, bound_us=100 * MS)
TOPIC = {source: name for name, source in INPUTS.items()}
RAW = [
    (S, snapshot("r1", AT)),
    (IMP, impression("r1", AT + 10 * MS)),
    (A, action("r1", AT + 20 * MS, 2)),
    (A, action("r1", AT + 20 * MS, 2)),
    (A, action("gone", AT + 20 * MS, 2)),
    (IMP, impression("r2", AT + 30 * MS, (4, 5))),
    (A, b"not an event"),
    *((source, barrier("end", AT + 10**9)) for source in SOURCES),
]


def inputs() -> dict:
    logs = {source: [] for source in SOURCES}
    for moment, (source, raw) in enumerate(RAW):
        logs[source].append(LogRecord(TOPIC[source], 0, len(logs[source]), moment, raw))
    return {0: logs}


def outputs() -> list[LogRecord]:
    """As an honest joiner writes them."""
    task, offsets, written = JoinTask(CONFIG), dict.fromkeys(SOURCES, 0), []
    for source, raw in RAW:
        for output in task.feed(source, offsets[source], raw):
            sent = outgoing(output, 0, b"key", AT)
            written.append(LogRecord(sent.topic, 0, len(written), 0, sent.value, sent.headers or ()))
        offsets[source] += 1
    return written


def difference(records: list[LogRecord]) -> Difference:
    return compare(expected(CONFIG, inputs()), found(records))


def test_an_honest_host_differs_in_nothing() -> None:
    clean = difference(outputs())
    assert clean.clean
    # Three items of r1, two of r2 whose snapshot is lost; a lone click, a snapshot lost, a malformed record.
    assert (clean.samples, clean.reason_rows, clean.impressed_items) == (3, 3, 5)


def test_every_record_missing_is_a_loss_and_every_record_twice_a_duplicate() -> None:
    honest = outputs()
    for place, record in enumerate(honest):
        if b"end" in record.value and record.topic == topics.SAMPLES.name:
            continue
        lost = difference(honest[:place] + honest[place + 1 :])
        assert lost.unexplained_losses >= 1 and not (lost.duplicates or lost.unjustified or lost.altered)
        twice = difference([*honest, record])
        assert twice.duplicates >= 1 and not (twice.unexplained_losses or twice.unjustified or twice.altered)


def test_another_label_or_another_row_is_altered_and_an_invented_sample_unjustified() -> None:
    honest = outputs()
    place = next(i for i, r in enumerate(honest) if r.topic == topics.SAMPLES.name)
    message = ev.SampleRecord.FromString(honest[place].value)
    message.sample.labels = b"\0\0\0\0"
    altered = difference([*honest[:place], forged(honest[place], message), *honest[place + 1 :]])
    assert (altered.altered, altered.duplicates, altered.unexplained_losses) == (1, 0, 0)
    message.sample.request_id = "never"
    assert difference([*honest, forged(honest[place], message)]).unjustified == 1


def forged(record: LogRecord, message: ev.SampleRecord) -> LogRecord:
    return LogRecord(record.topic, 0, 99, 0, message.SerializeToString())


def test_only_records_that_never_committed_are_aborted() -> None:
    honest = outputs()
    extra = LogRecord(topics.SAMPLES.name, 0, 1_000, 77, b"")
    assert aborted([*honest, extra], honest) == [77]


def test_a_kill_counts_as_open_only_with_aborted_records_of_its_moment() -> None:
    clean = difference(outputs())
    rounds = [
        Round(1, "aimed", "joiner-a", 10_000, 250.0, 4.0),
        Round(2, "kill", "joiner-b", 90_000, 250.0, 5.0),
    ]
    assert result(rounds, clean, [9_990])["kills_in_open_transaction"] == 1
    assert result(rounds, clean, [1_000, 95_000])["kills_in_open_transaction"] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"duplicates": 1}, "duplicates"),
        ({"unexplained_losses": 2}, "unexplained_losses"),
        ({"impressions_per_s_min": 199.0}, "impressions/s"),
        ({"kills_in_open_transaction": 4}, "open transaction"),
        ({"rounds": 19}, "rounds"),
    ],
)
def test_a_run_that_shows_too_little_fails(change: dict, said: str) -> None:
    rounds = [Round(n, "aimed", "joiner-a", n * 10_000, 250.0, 4.0) for n in range(20)]
    good = result(rounds, difference(outputs()), [r.at_ms for r in rounds])
    assert failures(good, 20) == []
    (problem,) = failures(good | change, 20)
    assert said in problem


def test_the_hosts_are_summed_and_the_worst_rate_is_kept() -> None:
    slow = result([Round(1, "kill", "taskmanager-a", 1, 201.0, 4.0)], difference(outputs()), [])
    fast = result([Round(1, "kill", "joiner-a", 1, 250.0, 4.0)], difference(outputs()[1:]), [1])
    both = together({"joiner": fast, "flink": slow}, {})
    assert (both["rounds"], both["kills"], both["kills_in_open_transaction"]) == (2, 2, 1)
    assert both["unexplained_losses"] == fast["unexplained_losses"] > 0
    assert both["impressions_per_s_min"] == 201.0
    assert both["hosts"] == {"joiner": fast, "flink": slow} and "round" not in both


def test_twenty_rounds_have_every_fault_and_mostly_aimed_kills() -> None:
    faults = plan(20)
    assert {fault: faults.count(fault) for fault in set(faults)} == {
        "aimed": 12,
        "kill": 4,
        "pause": 2,
        "broker": 2,
    }
