"""The Flink job under bad input: skewed clocks, an idle partition, poison, and transactions that time out."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest
from flink_kit import Job, numbers, said_once, until
from oracles.join_bad_input import IDLE, bad_input, ending
from oracles.join_traffic import closing, traffic

from local.chaos_check import aborted
from local.chaos_kafka import Tail, read
from local.flink_config import OUTPUTS
from services.contract import topics

pytestmark = [pytest.mark.flink, pytest.mark.integration]
TIMEOUT_MS = 16_000
# Behind it the broker looks once a second.
TIMED_OUT_S = TIMEOUT_MS / 1000 + 4
SLOW = ("--transaction-timeout-ms", str(TIMEOUT_MS), "--checkpoint-interval-ms", "3000")
TRIES = 6


class Freeze:
    """An Aim: a process that is frozen inside a transaction stays so."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def freeze(self, _partition: int) -> None:
        self.job.child.send_signal(signal.SIGSTOP)

    def decide(self, is_open: bool) -> None:
        if not is_open:
            self.job.child.send_signal(signal.SIGCONT)


async def test_skewed_clocks_an_idle_partition_and_poison_on_every_topic_are_all_explained(
    job, send, committed
) -> None:
    placed = bad_input()
    run = job("--parallelism", "2")
    await until(lambda: bool(numbers(run.folder)), run.child)
    await send(placed)
    said = await committed()
    # Windows close where no action ever comes: its writer's heartbeats move the watermark.
    deadline = time.monotonic() + 60
    while sum(r.partition == IDLE for r in (await said.read())[topics.SAMPLES.name]) <= 20:
        assert run.child.poll() is None and time.monotonic() < deadline
    await send(ending())
    assert await said_once(said, [*placed, *ending()], run.child) > 600
    assert len((await said.read())[topics.DEAD_LETTERS.name]) == 4 * 3 * 56


async def test_an_open_transaction_that_times_out_loses_nothing_and_says_nothing_twice(
    job, send, committed, private_kafka
) -> None:
    placed = [*traffic(9, 2500), *closing()]
    run = job(*SLOW)
    await until(lambda: bool(numbers(run.folder)), run.child)
    hurry = asyncio.Event()
    load = asyncio.create_task(send(placed, hurry))
    before = max(numbers(run.folder))
    await until(lambda: max(numbers(run.folder)) > before, run.child)
    # Between two checkpoints: what the last one counts as written has been committed.
    await asyncio.sleep(1.5)
    tail = Tail(private_kafka.bootstrap, OUTPUTS[0].name)
    try:
        assert await asyncio.to_thread(tail.in_transaction, Freeze(run), 30), "never frozen in a transaction"
    finally:
        tail.close()
    await asyncio.sleep(TIMED_OUT_S)
    run.child.send_signal(signal.SIGCONT)
    hurry.set()
    await load
    assert await said_once(await committed(), placed, run.child) > 4000
    everything, visible = [
        await asyncio.to_thread(read, private_kafka.bootstrap, OUTPUTS[:1], committed=only)
        for only in (False, True)
    ]
    assert aborted(everything, visible), "nothing was aborted"


async def killed_at_its_next_checkpoint(run: Job) -> None:
    """kill -9 when a checkpoint is complete and, most likely, its transaction not yet committed."""
    before = set(numbers(run.folder))

    def watch() -> None:
        deadline = time.monotonic() + 60
        while not set(numbers(run.folder)) - before:
            assert run.child.poll() is None, run.log.read_text()[-2000:]
            assert time.monotonic() < deadline
        run.kill()

    await until(lambda: len(numbers(run.folder)) > 0, run.child)
    before |= set(numbers(run.folder))
    await asyncio.to_thread(watch)


def ended_or_goes_on(job: Job, checkpoints: int) -> None:
    """Until the job has ended or written one more checkpoint."""
    while job.child.poll() is None and len(numbers(job.folder)) <= checkpoints:
        time.sleep(0.2)


@pytest.mark.timeout(400)
async def test_a_promised_transaction_that_times_out_ends_the_job_and_says_so(
    job, send, tmp_path: Path
) -> None:
    load = asyncio.create_task(send([*traffic(10, 30_000)], asyncio.Event()))
    try:
        for _ in range(TRIES):
            run = job(*SLOW)
            await killed_at_its_next_checkpoint(run)
            await asyncio.sleep(TIMED_OUT_S)
            again = job(*SLOW)
            # It fails before its first checkpoint, or not at all.
            runs = len(numbers(tmp_path))
            await asyncio.to_thread(ended_or_goes_on, again, runs)
            if again.child.poll() is not None:
                break
            again.kill()
    finally:
        load.cancel()
    assert again.child.poll() == 1, "every kill came too late"
    assert "flink-join: LostTransaction: Kafka aborted transaction flink-joiner-" in again.log.read_text()
