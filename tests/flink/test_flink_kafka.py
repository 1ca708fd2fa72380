"""The Flink job on real Kafka: the joiner's records, exactly once, through kill -9."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from flink_kit import CONFIG, runs, said_once, until
from oracles.join_traffic import Placed, closing, traffic

from rec.events.v1 import events_pb2 as ev
from services.contract import topics
from services.contract.join import JoinTask
from services.contract.join_events import Source
from services.joiner.outgoing import outgoing

pytestmark = [pytest.mark.flink, pytest.mark.integration]
KILLS = 3
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "join_input.txt"


def golden(partitions: tuple[int, ...]) -> list[Placed]:
    """The golden log, once in each of these partitions."""
    rows = [row.split() for row in GOLDEN.read_text().splitlines()]
    return [
        (Source[name], partition, b"k%d" % partition, bytes.fromhex(raw))
        for name, raw in rows
        for partition in partitions
    ]


def written(topic: str, partition: int | None, key: bytes | None, value: bytes, headers: list) -> tuple:
    """A record as far as it is the same whoever writes it: everything but the wall time in it."""
    if topic == topics.SAMPLES.name:
        record = ev.SampleRecord.FromString(value)
        record.sample.ClearField("joined_at") if record.HasField("sample") else None
        value = record.SerializeToString(deterministic=True)
    return topic, partition, key, value, tuple(headers or ())


def joiners_records(placed: list[Placed]) -> Counter[tuple]:
    """What the joiner writes of these logs."""
    tasks, offsets, wanted = {}, Counter(), Counter()
    for source, partition, key, raw in placed:
        task = tasks.setdefault(partition, JoinTask(CONFIG))
        for output in task.feed(source, offsets[source, partition], raw):
            out = outgoing(output, partition, key, joined_us=1)
            place = 0 if out.partition is None else out.partition
            wanted[written(out.topic, place, out.key, out.value, out.headers)] += 1
        offsets[source, partition] += 1
    return wanted


async def test_a_bounded_run_writes_exactly_the_joiners_records(job, send, committed) -> None:
    placed = golden((0, 2))
    await send(placed)
    # As far as Kafka gives them: a key that is empty is no key to Kafka's clients.
    run = job("--bounded")
    assert run.ended() == 0, run.log.read_text()[-3000:]
    records = await (await committed()).read()
    said = Counter(
        written(topic, r.partition, r.key, r.value, r.headers)
        for topic, rows in records.items()
        for r in rows
    )
    wanted = joiners_records(placed)
    assert said - wanted == Counter()
    assert wanted - said == Counter()
    counted = run.counted()
    assert counted["records"] == len(placed)
    assert counted["items_negative"] > 0
    assert counted["rejected_late"] == sum(n for row, n in wanted.items() if (("reason", b"late")) in row[4])


async def test_kill_9_again_and_again_loses_nothing_and_says_nothing_twice(
    job, send, committed, tmp_path: Path
) -> None:
    placed, hurry = [*traffic(3, 3000), *closing()], asyncio.Event()
    load = asyncio.create_task(send(placed, hurry))
    for round_ in range(KILLS):
        run = job("--parallelism", "2")
        await until(lambda done=round_ + 1: runs(tmp_path) >= done, run.child)
        await asyncio.sleep(1.1 + 0.2 * round_)
        run.kill()
        assert not load.done(), "killed after the load: proves little"
    hurry.set()
    run = job("--parallelism", "2")
    await load
    assert await said_once(await committed(), placed, run.child) > 5000
    assert "goes on from" in run.log.read_text()


async def test_what_cannot_go_on_ends_with_one_line_that_says_why(job, send) -> None:
    await send([row for row in traffic(4, 200) if row[1] == 0])
    full = job("--bounded", "--max-held-events", "20")
    assert full.ended() == 1
    assert "flink-join: StateFull: the join holds 21 events of one partition" in full.log.read_text()
    absent = job("--bounded", "--actions", "nowhere", "--samples", "late-events")
    assert absent.ended() == 2
    said = absent.log.read_text()
    assert said.startswith("flink-join: topic=nowhere: an input that exists; partitions of late-events=1: 4")
    assert said.count("\n") == 1


async def test_a_checkpoint_of_other_rules_is_refused(job, send, tmp_path: Path) -> None:
    await send([row for row in traffic(4, 200) if row[1] == 0])
    first = job()
    await until(lambda: runs(tmp_path) == 1, first.child)
    await asyncio.sleep(1.5)
    first.kill()
    await send([row for row in traffic(5, 50) if row[1] == 0])
    other = job("--window-ms", "5000")
    assert other.ended() == 1
    assert "flink-join: OtherRules: the checkpoint was written with w2000000b300000" in other.log.read_text()
