"""Feature-events read again for a view that joins: each record once, few fetches, whoever's turn it is."""

from __future__ import annotations

from services.feature_pipeline.new_views import _POLL_RECORDS, Replays
from services.runtime.kafka_consumer import ConsumerRecord, TopicPartition

A, B = TopicPartition("feature-events", 0), TopicPartition("feature-events", 1)


class Log:
    """A reader over two logs in memory; counts what is asked of Kafka."""

    def __init__(self, records: int) -> None:
        self.ends = {A: records, B: records}
        self.fetches = self.assignments = 0
        self._at: tuple[TopicPartition, int] = (A, 0)

    def assign(self, where: dict[TopicPartition, int]) -> None:
        ((place, offset),) = where.items()
        self._at = place, offset
        self.assignments += 1

    async def poll(self, _wait_ms: int, most: int) -> dict[TopicPartition, list[ConsumerRecord]]:
        self.fetches += 1
        where, offset = self._at
        end = min(self.ends[where], offset + most)
        self._at = where, end
        return {where: [record(where, at) for at in range(offset, end)]} if end > offset else {}


def record(where: TopicPartition, offset: int) -> ConsumerRecord:
    return ConsumerRecord(where.topic, where.partition, offset, 0, 0, None, b"%d" % offset, None, 0, 0, ())


async def read(replays: Replays, where: TopicPartition, offset: int, used: int) -> list[int]:
    """What one slice of at most ``used`` records takes."""
    records = await replays.take(where, offset)
    taken = [one.offset for one in records[:used]]
    replays.keep(where, taken[-1] + 1 if taken else offset, records[used:])
    return taken


async def test_two_partitions_in_turn_read_each_record_once_with_few_fetches() -> None:
    log = Log(4 * _POLL_RECORDS)
    replays, found = Replays(log), {A: [], B: []}
    while any(len(one) < log.ends[A] for one in found.values()):
        for where, offsets in found.items():
            offsets.extend(await read(replays, where, len(offsets), 40))
    assert found[A] == found[B] == list(range(4 * _POLL_RECORDS))
    assert log.fetches == 8


async def test_what_is_kept_is_only_for_who_goes_on_there() -> None:
    replays = Replays(Log(100))
    assert await read(replays, A, 10, 5) == [10, 11, 12, 13, 14]
    # Another view of the same partition stands elsewhere.
    assert await read(replays, A, 50, 2) == [50, 51]
    assert await read(replays, A, 15, 2) == [15, 16]
    replays.forget(A)
    assert await read(replays, A, 17, 1) == [17]


async def test_a_log_that_has_nothing_new_is_asked_again_from_where_it_ended() -> None:
    log = Log(3)
    replays = Replays(log)
    assert await read(replays, A, 0, 9) == [0, 1, 2]
    assert await read(replays, A, 3, 9) == []
    log.ends[A] = 5
    assert await read(replays, A, 3, 9) == [3, 4]
    assert log.assignments == 1
