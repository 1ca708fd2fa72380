"""What the joiner's schemes decide: order of reading, gates, tables at hand, names of topics."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from oracles.join_logs import IMP, A, S, heartbeat, impression, snapshot
from oracles.slim_traffic import catalogue, slimmed, widened

from rec.events.v1 import events_pb2 as ev
from services.contract import topics
from services.contract.batch_view import Table, table
from services.contract.errors import NotFound
from services.contract.join_config import JoinConfig
from services.contract.join_events import SOURCES
from services.contract.join_label_first import LabelFirstTask
from services.contract.join_output import BarrierPassed, Reason, Rejected
from services.joiner.gate import Gate
from services.joiner.label_first import LabelFirst
from services.joiner.outgoing import outgoing
from services.joiner.scheme import Intake, Scheme, scheme_of
from services.joiner.settings import Settings
from services.joiner.view_tables import ViewTables
from services.runtime.kafka_consumer import ConsumerRecord, TopicPartition
from services.runtime.settings import load

CONFIG = JoinConfig(window_us=10, bound_us=3)
TABLE = table(4, catalogue(1, 50, 10**6))


def records(*values: bytes, first: int = 0) -> list[ConsumerRecord]:
    """As the client gives them."""
    return [
        ConsumerRecord("t", 0, first + k, 0, 0, None, value, None, 0, len(value), ())
        for k, value in enumerate(values)
    ]


def fed(gate: Gate, task: LabelFirstTask, source: Any, values: list[ConsumerRecord]) -> list[tuple[int, int]]:
    """(input, offset) of what goes into the join, as a host feeds it."""
    went = []
    for now, ready in gate.order(task, source, values):
        for record in ready:
            task.feed(now, record.offset, record.value or b"")
            went.append((int(now), record.offset))
    return went


def a_gate(ready: bool = True, limit: int = 4, crowded: int = 1000) -> Gate:
    return Gate(limit, lambda view: ready, crowded)


def test_labels_pass_at_once_and_each_snapshot_behind_its_labels_in_order() -> None:
    gate, task = a_gate(), LabelFirstTask(CONFIG)
    snapshots = records(heartbeat(1), snapshot("a", 100), heartbeat(105), snapshot("b", 110), b"broken")
    assert fed(gate, task, S, snapshots) == [(0, 0)]
    assert (gate.waiting, gate.room) == (4, 0)
    assert gate.waiting_bytes == sum(len(record.value or b"") for record in snapshots[1:])
    assert gate.watermarks(task) == {}, "nobody is ahead: the snapshots wait for the labels"
    assert fed(gate, task, IMP, records(impression("a", 101), heartbeat(124))) == [(1, 0), (1, 1)]
    assert fed(gate, task, A, records(heartbeat(124))) == [(2, 0), (0, 1), (0, 2)]
    # The snapshots' clock is 105, their watermark 102; they may be as late as their labels.
    assert (gate.room, gate.watermarks(task)) == (2, {})
    assert fed(gate, task, IMP, records(heartbeat(200), first=2)) == [(1, 2)]
    assert fed(gate, task, A, records(heartbeat(200), first=1)) == [(2, 1), (0, 3), (0, 4)]
    assert (gate.waiting, gate.waiting_bytes) == (0, 0)
    assert gate.watermarks(task) == {S: 110 - 3 + 23, IMP: 197, A: 197}


def test_a_snapshot_waits_for_its_table_and_goes_when_asked_again() -> None:
    asked: list[int] = []
    there: set[int] = set()

    def ready(view: ev.BatchView) -> bool:
        asked.append(view.partition)
        return view.partition in there

    gate, task = Gate(4, ready, 1000), LabelFirstTask(CONFIG)
    whole = widened(ev.EventRecord.FromString(snapshot("a", 100)), TABLE, 1)
    inline = widened(ev.EventRecord.FromString(snapshot("b", 101, [90, 91])), TABLE, 2)
    thin = [slimmed(record, TABLE).SerializeToString() for record in (inline, whole)]
    for source in (IMP, A):
        fed(gate, task, source, records(heartbeat(200)))
    assert fed(gate, task, S, records(*thin)) == [(0, 0)], "with all columns inline no table is needed"
    assert asked == [4]
    assert gate.watermarks(task) != {}
    there.add(4)
    assert fed(gate, task, S, []) == [(0, 1)]


def test_a_crowded_partition_and_a_replay_do_not_wait_for_labels() -> None:
    gate, task = a_gate(crowded=2), LabelFirstTask(CONFIG)
    assert fed(gate, task, S, records(snapshot("a", 100))) == []
    assert fed(gate, task, IMP, records(impression("x", 50))) == [(1, 0)]
    assert fed(gate, task, IMP, records(impression("y", 51), first=1)) == [(1, 1), (0, 0)]
    again = LabelFirstTask(CONFIG, task.positions())
    assert again.replaying
    assert fed(a_gate(), again, S, records(snapshot("a", 100))) == [(0, 0)]


def label_first(**settings: Any) -> LabelFirst:
    made = scheme_of(Settings(scheme="label-first", lake_uri="memory://nowhere", **settings))
    assert isinstance(made, LabelFirst)
    return made


def test_snapshots_are_read_only_as_far_as_there_is_room_and_labels_always() -> None:
    scheme = label_first(max_gated_records=3, max_poll_records=50)
    slim = topics.FEATURE_SNAPSHOTS_SLIM.name
    names = scheme.names.inputs
    assert [names[source] for source in SOURCES] == [slim, "impressions", "actions"]
    owned = {TopicPartition(name, partition) for name in names.values() for partition in (0, 1)}
    full, free = scheme.intake(), scheme.intake()
    task = LabelFirstTask(CONFIG)
    fed(full, task, S, records(*(snapshot(f"{k}", 100) for k in range(3))))
    fed(free, task, S, records(snapshot("x", 100)))
    first, rest = scheme.reads(owned, {0: full, 1: free})
    assert first == ([TopicPartition(slim, 1)], 2)
    assert (set(rest[0]), rest[1]) == ({where for where in owned if where.topic != slim}, 50)
    assert scheme.reads(set(), {}) == []
    # Not open: what is read of its snapshots would be dropped.
    assert [where for where, _ in scheme.reads(owned, {})] == [rest[0]]


def test_the_stream_reads_everything_straight() -> None:
    scheme = scheme_of(Settings())
    assert type(scheme) is Scheme
    assert list(scheme.reads(set(), {})) == [((), 500)]
    assert type(scheme.intake()) is Intake


@pytest.mark.parametrize("suffix", ["", "-lookup", "-label-first2"])
def test_outputs_carry_the_suffix(suffix: str) -> None:
    names = scheme_of(Settings(output_suffix=suffix)).names
    lost = Rejected(Reason.FEATURES_LOST, S, 3, b"raw", "r", detail="gone")
    assert outgoing(BarrierPassed("b", 1), 2, None, 0, names).topic == f"samples{suffix}"
    assert (
        outgoing(Rejected(Reason.LATE, S, 3, b"raw", "r"), 2, None, 0, names).topic == f"late-events{suffix}"
    )
    dead = outgoing(lost, 2, None, 0, label_first(output_suffix=suffix).names)
    headers = dict(dead.headers or ())
    assert (dead.topic, dead.key) == (f"dead-letters{suffix}", b"r")
    assert headers[topics.HEADER_ORIGIN_TOPIC] == topics.FEATURE_SNAPSHOTS_SLIM.name.encode()
    assert headers["detail"] == b"gone"


@pytest.mark.parametrize("suffix", ["x", "-", "-A", "-" + "a" * 33, "-a b"])
def test_a_suffix_that_is_none_is_refused_by_name(suffix: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        load(Settings, [f"--output_suffix={suffix}"])
    assert "setting output_suffix" in capsys.readouterr().err
    with pytest.raises(ValueError, match="output_suffix"):
        topics.suffixed(topics.SAMPLES, suffix)


async def until_ready(tables: ViewTables, partition: int) -> None:
    async with asyncio.timeout(5):
        while not tables.ready(ev.BatchView(partition=partition)):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_tables_are_read_once_and_the_least_recently_used_leave() -> None:
    read: list[int] = []

    def reading(view: ev.BatchView) -> Table:
        read.append(view.partition)
        if view.partition == 9:
            raise NotFound("9 is gone")
        return table(view.partition, [])

    tables = ViewTables(reading, 2, 0.001)
    assert isinstance(tables.find(ev.BatchView(partition=1)), str)
    running = asyncio.create_task(tables.run())
    for partition in (1, 2, 1, 9, 1):
        await until_ready(tables, partition)
    assert read == [1, 2, 9]
    assert tables.find(ev.BatchView(partition=9)) == "9 is gone"
    await until_ready(tables, 2)
    assert read == [1, 2, 9, 2], "2 had left, 9 was kept as an answer"
    running.cancel()


async def test_a_store_that_fails_is_asked_until_it_answers() -> None:
    failures = [OSError("away")] * 3

    def reading(view: ev.BatchView) -> Table:
        if failures:
            raise failures.pop()
        return table(view.partition, [])

    tables = ViewTables(reading, 2, 0.001)
    running = asyncio.create_task(tables.run())
    await until_ready(tables, 1)
    assert isinstance(tables.find(ev.BatchView(partition=1)), Table)
    running.cancel()
