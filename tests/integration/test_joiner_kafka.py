"""The joiner as a process on real Kafka: against the oracle, killed, frozen, twice at once."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from joiner_kit import CONFIG, JoinerProcess, committed_records
from oracles.join_bad_input import IDLE, bad_input, ending
from oracles.join_logs import barrier
from oracles.join_oracle import joined
from oracles.join_traffic import TOPIC, Placed, closing, logs_by_partition, said_in_kafka, traffic

from local.chaos_check import aborted
from local.chaos_kafka import Tail, read
from services.contract import topics
from services.contract.join_events import SOURCES
from services.runtime.kafka_producer import Producer
from services.runtime.settings import KafkaSettings

pytestmark = pytest.mark.integration


@pytest.fixture
def joiners(private_kafka, tmp_path: Path, free_ports) -> Iterator:
    """Starts joiners; kills what is left of them."""
    started: list[JoinerProcess] = []

    def start(*options: str) -> JoinerProcess:
        log = tmp_path / f"joiner-{len(started)}.log"
        joiner = JoinerProcess(private_kafka.bootstrap, free_ports(1)[0], log, *options)
        started.append(joiner)
        return joiner

    yield start
    for joiner in started:
        joiner.kill()


@pytest.fixture
def kafka(private_kafka) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=private_kafka.bootstrap)


@pytest.fixture
async def send(kafka: KafkaSettings) -> AsyncIterator:
    """Sends placed records in order and waits for the acknowledgements."""
    producer = Producer(kafka, "test")
    await producer.start()

    async def send_all(placed: list[Placed], pause_s: float = 0.0, every: int = 50) -> None:
        for at in range(0, len(placed), every):
            await asyncio.gather(
                *(
                    producer.send_nowait(TOPIC[source], raw, key=key, partition=partition)
                    for source, partition, key, raw in placed[at : at + every]
                )
            )
            await asyncio.sleep(pause_s)

    yield send_all
    await producer.stop()


async def check(kafka: KafkaSettings, placed: list[Placed]) -> Counter:
    """Each partition's committed output is exactly the oracle's; returns what was compared."""
    records = await committed_records(kafka)
    total: Counter = Counter()
    for partition, logs in enumerate(logs_by_partition(placed)):
        wanted, said = joined(CONFIG, logs), said_in_kafka(partition, records)
        assert said - wanted == Counter(), "said twice or wrongly"
        assert wanted - said == Counter(), "lost"
        for row, count in said.items():
            total[row[0] if row[0] != "rejected" else row[1]] += count
    return total


async def test_the_joiner_says_what_the_oracle_says(joiners, kafka, send) -> None:
    placed = [*traffic(1, 1500), *closing()]
    joiner = joiners()
    await send(placed)
    await joiner.until_caught_up(4)
    total = await check(kafka, placed)
    assert total["sample"] > 1500
    for reason in ("late", "after_window", "no_impression", "snapshot_lost", "unscored", "malformed"):
        assert total[reason], reason
    status = await joiner.status()
    assert status.state == "running"
    assert status.numbers["items.negative"] > 0
    assert joiner.terminate() == 0


async def test_a_barrier_flushes_every_window_at_once(joiners, kafka, send) -> None:
    placed = list(traffic(2, 100))
    at = 10**15 + 10**9
    placed += [(s, p, b"", barrier("done", at)) for s in SOURCES for p in range(4)]
    joiner = joiners()
    await joiner.until_caught_up(4)
    await send(placed[:-1])
    began = time.monotonic()
    await send(placed[-1:])
    await joiner.until_caught_up(4)
    assert time.monotonic() - began < 2.0
    total = await check(kafka, placed)
    assert total["barrier"] == 4
    assert (await joiner.status()).last_barrier_id == "done"


async def test_kill_9_again_and_again_loses_nothing_and_says_nothing_twice(joiners, kafka, send) -> None:
    placed = [*traffic(3, 4000), *closing()]
    load = asyncio.create_task(send(placed, pause_s=0.04))
    joiner = joiners()
    for _ in range(4):
        await asyncio.sleep(4)
        joiner.kill()
        joiner = joiners()
    await load
    await joiner.until_caught_up(4)
    total = await check(kafka, placed)
    assert total["sample"] > 4000


async def test_a_zombie_is_fenced_and_two_members_share_the_partitions(joiners, kafka, send) -> None:
    placed = [*traffic(4, 2500), *closing()]
    zombie = joiners()
    await zombie.until_caught_up(4)
    load = asyncio.create_task(send(placed, pause_s=0.05))
    await asyncio.sleep(1.5)
    zombie.signal(signal.SIGSTOP)
    heir = joiners()
    # The heir owns everything and has fenced the zombie, which wakes up in the middle of its work.
    await heir.until_owning(4)
    zombie.signal(signal.SIGCONT)
    await load
    await zombie.until_caught_up(2)
    await heir.until_caught_up(2)
    await check(kafka, placed)
    # A member that leaves politely hands over what it has.
    assert zombie.terminate() == 0
    await heir.until_caught_up(4)
    await check(kafka, placed)


async def test_skewed_clocks_an_idle_partition_and_poison_on_every_topic_are_all_explained(
    joiners, kafka, send
) -> None:
    placed = bad_input()
    joiner = joiners()
    await send(placed)
    await joiner.until_caught_up(4)
    # Windows close where no action ever comes: its writer's heartbeats move the watermark.
    samples = (await committed_records(kafka))[topics.SAMPLES.name]
    assert sum(record.partition == IDLE for record in samples) > 20
    await send(ending())
    await joiner.until_caught_up(4)
    total = await check(kafka, [*placed, *ending()])
    assert total["malformed"] == 4 * 3 * 56 and total["late"] and total["barrier"] == 4
    assert joiner.terminate() == 0


class Freeze:
    """An Aim: a process that is frozen inside a transaction stays so."""

    def __init__(self, joiner: JoinerProcess) -> None:
        self.joiner = joiner

    def freeze(self, _partition: int) -> None:
        self.joiner.signal(signal.SIGSTOP)

    def decide(self, is_open: bool) -> None:
        if not is_open:
            self.joiner.signal(signal.SIGCONT)


async def test_a_transaction_that_times_out_loses_nothing_and_says_nothing_twice(
    joiners, kafka, send, private_kafka
) -> None:
    placed = [*traffic(5, 1000), *closing()]
    # The group keeps the frozen member, so its transactions time out and nobody else has aborted them.
    joiner = joiners("--kafka.transaction_timeout_ms", "1500", "--kafka.session_timeout_ms", "60000")
    await joiner.until_caught_up(4)
    tail = Tail(private_kafka.bootstrap, topics.SAMPLES.name)
    try:
        load = asyncio.create_task(send(placed, pause_s=0.05))
        assert await asyncio.to_thread(tail.in_transaction, Freeze(joiner), 20), (
            "never frozen in a transaction"
        )
    finally:
        tail.close()
    # Longer than the timeout and the time between two looks of the broker.
    await asyncio.sleep(4)
    joiner.signal(signal.SIGCONT)
    await load
    await joiner.until_caught_up(4)
    assert (await check(kafka, placed))["sample"] > 1000
    bootstrap = private_kafka.bootstrap
    everything = await asyncio.to_thread(read_all, bootstrap, False)
    assert aborted(everything, await asyncio.to_thread(read_all, bootstrap, True)), "nothing was aborted"


def read_all(bootstrap: str, committed: bool) -> list:
    """What stands on samples; ``committed`` leaves out what was aborted."""
    return read(bootstrap, [topics.SAMPLES], committed=committed)
