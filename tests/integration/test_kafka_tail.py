"""A small topic that every replica follows: read whole, refused records pass by, a dead broker comes back."""

from __future__ import annotations

import asyncio

import pytest

from services.contract import topics
from services.contract.errors import InvalidInput, Unavailable
from services.runtime.kafka_producer import Producer, TransactionalProducer
from services.runtime.kafka_tail import LogTail
from services.runtime.settings import KafkaSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
TOPIC = topics.FEATURE_VIEWS.name


class Seen:
    """What was taken; the value ``no`` is refused."""

    def __init__(self) -> None:
        self.values: list[tuple[bytes | None, bytes | None]] = []

    def take(self, key: bytes | None, value: bytes | None) -> None:
        if value == b"no":
            raise InvalidInput.one("value", value, "another one")
        self.values.append((key, value))

    async def until(self, count: int) -> None:
        async with asyncio.timeout(40):
            while len(self.values) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_it_is_read_to_its_end_and_then_followed_through_a_broker_that_dies(private_kafka) -> None:
    kafka = KafkaSettings(bootstrap_servers=private_kafka.bootstrap, request_timeout_ms=2_000)
    writer, producer = TransactionalProducer(kafka, "w"), Producer(kafka, "p")
    await writer.start()
    await producer.start()
    seen, told = Seen(), asyncio.Event()
    tail = LogTail(kafka, "tail", TOPIC, seen.take)
    await tail.start()
    await tail.catch_up()
    assert seen.values == []
    for value, committed in ((b"1", True), (b"aborted", False), (b"2", True)):
        await writer.begin()
        writer.send_nowait(TOPIC, value, b"k", partition=0)
        await (writer.commit() if committed else writer.abort())
    await producer.send(TOPIC, b"no", b"k")
    await producer.send(TOPIC, b"3", b"k")
    # The end of the log is a marker, or a record that means nothing: reached all the same, by both at once.
    await asyncio.gather(tail.catch_up(), tail.catch_up())
    assert [value for _, value in seen.values] == [b"1", b"2", b"3"]

    following = asyncio.create_task(tail.run(told.set))
    await producer.send(TOPIC, b"4", b"k")
    await seen.until(4)
    assert seen.values[-1] == (b"k", b"4")
    async with asyncio.timeout(5):
        await told.wait()
    private_kafka.kill()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(tail.catch_up(), 30)
    await asyncio.to_thread(private_kafka.start)
    await producer.send(TOPIC, b"5", b"k")
    await seen.until(5)
    following.cancel()
    again = Seen()
    other = LogTail(kafka, "other", TOPIC, again.take)
    await other.start()
    await other.catch_up()
    assert again.values == seen.values
    for one in (writer, producer, tail, other):
        await one.stop()
