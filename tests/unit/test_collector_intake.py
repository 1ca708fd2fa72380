"""The intake: what is in flight, when a batch is acknowledged, what its refusal says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from prometheus_client import REGISTRY

from services.collector.intake import Intake
from services.collector.records import Record
from services.contract.errors import LoopError, Overloaded, Unavailable
from services.runtime.kafka_outbox import Ended

BATCH = [
    Record("impressions", 0, b"a", b"1"),
    Record("actions", 3, b"a", b"2"),
    Record("actions", 3, b"a", b"3"),
]


class Kafka:
    """A producer that answers when told."""

    def __init__(self) -> None:
        self.stalled = False
        self.full = False
        self.waiting: list[tuple[Record, Ended]] = []

    def send_each(self, records: Sequence[Record], ended: Ended) -> None:
        if self.full:
            raise Overloaded("the producer is full")
        self.waiting += [(record, ended) for record in records]

    def answer(self, error: LoopError | None = None) -> None:
        record, ended = self.waiting.pop(0)
        ended(record.topic, None, error)


class Rig:
    def __init__(self, limit: int = 10) -> None:
        self.kafka = Kafka()
        self.wrote: list[set[tuple[str, int]]] = []
        self.intake = Intake(self.kafka, limit, lambda *places: self.wrote.append(set(places)))  # type: ignore[arg-type]


def acknowledged(topic: str) -> float:
    return REGISTRY.get_sample_value("recloop_collector_records_acknowledged_total", {"topic": topic}) or 0.0


async def test_a_batch_is_acknowledged_when_every_record_is_and_each_is_in_flight_until_its_own_answer() -> (
    None
):
    rig = Rig()
    before = acknowledged("actions")
    acks = rig.intake.write(BATCH)
    assert rig.wrote == [{("impressions", 0), ("actions", 3)}]
    waiting = asyncio.create_task(rig.intake.acknowledged(acks, 5.0))
    for left in (2, 1):
        rig.kafka.answer()
        await asyncio.sleep(0.01)
        assert (rig.intake.in_flight, waiting.done()) == (left, False)
    rig.kafka.answer()
    await waiting
    assert (rig.intake.in_flight, acks.count) == (0, 3)
    assert acknowledged("actions") == before + 2


async def test_one_failed_record_fails_its_batch_once_the_others_are_answered() -> None:
    rig = Rig()
    before = acknowledged("impressions"), acknowledged("actions")
    failed, other = rig.intake.write(BATCH), rig.intake.write(BATCH)
    waiting = asyncio.create_task(rig.intake.acknowledged(failed, 5.0))
    rig.kafka.answer(Unavailable("send to impressions: gone"))
    rig.kafka.answer(Unavailable("a later one"))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    rig.kafka.answer()
    with pytest.raises(Unavailable, match="send to impressions: gone"):
        await waiting
    assert (acknowledged("impressions"), acknowledged("actions")) == (before[0], before[1] + 1)
    for _ in range(3):
        rig.kafka.answer()
    await rig.intake.acknowledged(other, 5.0)


async def test_who_waits_no_longer_is_told_how_much_is_missing_and_its_records_stay_in_flight() -> None:
    rig = Rig()
    acks = rig.intake.write(BATCH)
    rig.kafka.answer()
    with pytest.raises(Unavailable, match=r"2 of 3 not acknowledged within 0\.000 s"):
        await rig.intake.acknowledged(acks, 0.0)
    assert rig.intake.in_flight == 2
    rig.kafka.answer()
    rig.kafka.answer()
    assert rig.intake.in_flight == 0


async def test_a_failure_is_named_rather_than_what_is_late() -> None:
    rig = Rig()
    acks = rig.intake.write(BATCH)
    rig.kafka.answer(Unavailable("gone"))
    with pytest.raises(Unavailable, match="gone"):
        await rig.intake.acknowledged(acks, 0.0)


async def test_answers_that_came_before_the_wait_need_no_time() -> None:
    rig = Rig()
    acks = rig.intake.write(BATCH)
    for _ in BATCH:
        rig.kafka.answer()
    await rig.intake.acknowledged(acks, 0.0)
    await rig.intake.acknowledged(rig.intake.write([]), 0.0)


async def test_a_batch_that_does_not_fit_is_refused_whole() -> None:
    rig = Rig(limit=5)
    rig.intake.write(BATCH)
    with pytest.raises(Overloaded, match="3 events wait for Kafka, 5 may"):
        rig.intake.write(BATCH)
    rig.kafka.stalled = True
    with pytest.raises(Unavailable, match="nothing was acknowledged"):
        rig.intake.write([])
    rig.kafka.stalled, rig.kafka.full = False, True
    with pytest.raises(Overloaded, match="producer is full"):
        rig.intake.write(BATCH[:1])
    assert (rig.intake.in_flight, len(rig.kafka.waiting), len(rig.wrote)) == (3, 3, 1)
