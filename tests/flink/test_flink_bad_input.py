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
from local.chaos_kafka import read
from local.flink_config import OUTPUTS
from services.contract import topics

pytestmark = [pytest.mark.flink, pytest.mark.integration]
TIMEOUT_MS = 16_000
# Behind it the broker looks once a second.
TIMED_OUT_S = TIMEOUT_MS / 1000 + 4
SLOW = ("--transaction-timeout-ms", str(TIMEOUT_MS), "--checkpoint-interval-ms", "3000")
SLOWER = ("--transaction-timeout-ms", str(TIMEOUT_MS), "--checkpoint-interval-ms", "7000")
TRIES = 6


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


def not_committed(bootstrap: str) -> list:
    """What stands on the job's samples in transactions that are open or aborted."""
    everything, visible = (read(bootstrap, OUTPUTS[:1], committed=only) for only in (False, True))
    return aborted(everything, visible)


async def test_an_open_transaction_that_times_out_loses_nothing_and_says_nothing_twice(
    job, send, committed, private_kafka
) -> None:
    placed = [*traffic(9, 2500), *closing()]
    run = job(*SLOWER)
    sent = 0
    for _ in range(TRIES):
        before = max(numbers(run.folder), default=0)
        await until(lambda wanted=before: max(numbers(run.folder), default=0) > wanted, run.child)
        # Most often all of it is said and acknowledged when the process is frozen, in the middle between two
        # checkpoints: then no failed send tells the writer that it is gone.
        await send(placed[sent : sent + 300])
        sent += 300
        await asyncio.sleep(1.5)
        run.child.send_signal(signal.SIGSTOP)
        if await asyncio.to_thread(not_committed, private_kafka.bootstrap):
            break
        run.child.send_signal(signal.SIGCONT)
    else:
        raise AssertionError("never frozen in a transaction")
    await asyncio.sleep(TIMED_OUT_S)
    run.child.send_signal(signal.SIGCONT)
    noticed = ("the open transaction is", "InvalidProducerEpochException")
    await until(lambda: any(words in run.log.read_text() for words in noticed), run.child)
    await send(placed[sent:])
    assert await said_once(await committed(), placed, run.child) > 4000
    assert await asyncio.to_thread(not_committed, private_kafka.bootstrap), "nothing was aborted"


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
