"""The bounded queue in front of Kafka: order, limits, accounting. The broker is a function of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from aiokafka import errors as kafka

from services.contract.errors import Conflict, InvalidInput, LoopError, Overloaded, Unavailable
from services.contract.topics import MAX_RECORD_BYTES
from services.runtime.kafka_outbox import Outbox, Outgoing
from services.runtime.settings import KafkaSettings


class Broker:
    """Takes records when its gate is open and answers when told."""

    def __init__(self) -> None:
        self.taken: list[Outgoing] = []
        self.answers: list[asyncio.Future] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def hand(self, record: Outgoing) -> asyncio.Future:
        await self.gate.wait()
        self.taken.append(record)
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]


class Rig:
    def __init__(self, **limits: int) -> None:
        self.broker = Broker()
        self.outbox = Outbox(KafkaSettings(**limits), "unit", self.broker.hand)
        self.pump = asyncio.get_running_loop().create_task(self.outbox.pump())

    def put(self, value: bytes = b"x") -> asyncio.Future:
        return self.outbox.put("t", value, None, None, None)

    async def turn(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def rigs() -> AsyncIterator[type]:
    made: list[Rig] = []

    def make(**limits: int) -> Rig:
        made.append(Rig(**limits))
        return made[-1]

    yield make
    for rig in made:
        rig.pump.cancel()
        await asyncio.gather(rig.pump, return_exceptions=True)


async def test_order_is_kept_while_the_client_makes_senders_wait(rigs) -> None:
    rig = rigs()
    rig.broker.gate.clear()
    rig.put(b"0")
    await rig.turn()
    rig.broker.gate.set()
    for i in range(1, 5):
        rig.put(b"%d" % i)
    await rig.turn()
    assert [record.value for record in rig.broker.taken] == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_record_is_pending_until_the_broker_answers_even_when_its_caller_gave_up(rigs) -> None:
    rig = rigs(max_pending_records=1)
    rig.put().cancel()
    await rig.turn()
    assert rig.outbox.pending == 1
    assert rig.outbox.oldest_s() > 0
    with pytest.raises(Overloaded):
        rig.put()
    rig.broker.answers[0].set_result("metadata")
    await rig.turn()
    assert (rig.outbox.pending, rig.outbox.oldest_s()) == (0, 0.0)
    rig.put()


async def test_bytes_are_limited_and_given_back(rigs) -> None:
    rig = rigs(max_pending_bytes=5_000)
    first = rig.put(b"x" * 4_000)
    with pytest.raises(Overloaded):
        rig.put(b"x" * 1_000)
    await rig.turn()
    rig.broker.answers[0].set_result("metadata")
    assert await first == "metadata"
    rig.put(b"x" * 4_000)


async def test_a_record_that_no_topic_takes_is_named_before_it_is_queued(rigs) -> None:
    rig = rigs()
    with pytest.raises(InvalidInput, match="record for t"):
        rig.put(b"x" * MAX_RECORD_BYTES)
    assert rig.outbox.pending == 0


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (kafka.KafkaTimeoutError(), Unavailable),
        (kafka.NotEnoughReplicasError(), Unavailable),
        (kafka.ProducerFenced(), Conflict),
        (kafka.InvalidProducerEpoch(), Conflict),
        (kafka.MessageSizeTooLargeError(), InvalidInput),
    ],
)
async def test_errors_leave_as_the_loops_own_and_are_reported_raw(
    rigs, raised: Exception, expected: type
) -> None:
    rig = rigs()
    seen: list[BaseException] = []
    rig.outbox.on_error(seen.append)
    sent = rig.put()
    await rig.turn()
    rig.broker.answers[0].set_exception(raised)
    with pytest.raises(expected):
        await sent
    assert seen == [raised]


async def test_flush_returns_when_nothing_is_pending(rigs) -> None:
    rig = rigs()
    await rig.outbox.flush()
    rig.put()
    flushing = asyncio.get_running_loop().create_task(rig.outbox.flush())
    await rig.turn()
    assert not flushing.done()
    rig.broker.answers[0].set_result("metadata")
    await flushing


async def test_everything_pending_fails_when_the_client_is_gone(rigs) -> None:
    rig = rigs()
    sent = [rig.put(), rig.put()]
    await rig.turn()
    rig.outbox.fail_all(Unavailable("gone"))
    for one in sent:
        with pytest.raises(Unavailable, match="gone"):
            await one
    rig.broker.answers[0].set_result("too late")
    await rig.turn()
    assert rig.outbox.pending == 0


class Told:
    """Remembers how records ended."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, object, LoopError | None]] = []

    def __call__(self, topic: str, metadata: object, error: LoopError | None) -> None:
        self.ends.append((topic, metadata, error))


class Placed(NamedTuple):
    topic: str
    partition: int
    key: bytes | None
    value: bytes


async def test_records_put_together_keep_their_order_among_others_and_are_told_one_by_one(rigs) -> None:
    rig, told = rigs(), Told()
    rig.put(b"before")
    rig.outbox.put_each([Placed("a", 3, b"k", b"0"), Placed("b", 1, None, b"1")], told)
    rig.put(b"after")
    await rig.turn()
    taken = [(record.topic, record.partition, record.key, record.value) for record in rig.broker.taken]
    assert taken == [
        ("t", None, None, b"before"),
        ("a", 3, b"k", b"0"),
        ("b", 1, None, b"1"),
        ("t", None, None, b"after"),
    ]
    assert (rig.outbox.pending, told.ends) == (4, [])
    rig.broker.answers[2].set_result("metadata")
    await rig.turn()
    assert (rig.outbox.pending, told.ends) == (3, [("b", "metadata", None)])
    rig.broker.answers[1].set_exception(kafka.NotEnoughReplicasError())
    await rig.turn()
    topic, metadata, error = told.ends[1]
    assert (topic, metadata, type(error)) == ("a", None, Unavailable)
    assert rig.outbox.pending == 2


@pytest.mark.parametrize("limits", [{"max_pending_records": 3}, {"max_pending_bytes": 2_000}])
async def test_records_put_together_are_refused_together(rigs, limits: dict[str, int]) -> None:
    rig, told = rigs(**limits), Told()
    rig.outbox.put_each([Placed("t", 0, None, b"x")] * 2, told)
    with pytest.raises(Overloaded, match="2 records"):
        rig.outbox.put_each([Placed("t", 0, None, b"x")] * 2, told)
    assert rig.outbox.pending == 2
    rig.outbox.put_each([Placed("t", 0, None, b"x")], told)


async def test_of_records_put_together_one_too_large_keeps_all_out(rigs) -> None:
    rig, told = rigs(), Told()
    with pytest.raises(InvalidInput, match="record for t"):
        rig.outbox.put_each([Placed("t", 0, None, b"x"), Placed("t", 0, None, b"x" * MAX_RECORD_BYTES)], told)
    assert (rig.outbox.pending, told.ends) == (0, [])


async def test_records_put_together_are_told_once_when_the_client_is_gone(rigs) -> None:
    rig, told = rigs(), Told()
    rig.outbox.put_each([Placed("t", 0, None, b"x")] * 3, told)
    await rig.turn()
    rig.outbox.fail_all(Unavailable("gone"))
    rig.broker.answers[0].set_result("too late")
    await rig.turn()
    assert [str(error) for _, _, error in told.ends] == ["gone"] * 3
    assert rig.outbox.pending == 0
