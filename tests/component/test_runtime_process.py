"""How a process ends: order, deadline, failures, signals. The last ones with real processes."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from services.runtime.process import Process
from services.runtime.settings import GrpcServerSettings, ProcessSettings

REPOSITORY = Path(__file__).resolve().parents[2]


def make(shutdown_ms: int = 2_000) -> Process:
    return Process(ProcessSettings(name="t", grpc=GrpcServerSettings(port=0), shutdown_ms=shutdown_ms))


async def test_drains_come_first_then_closers_in_reverse_then_the_last_hooks() -> None:
    process, seen = make(), []

    def note(name: str):
        async def close() -> None:
            seen.append(name)

        return close

    async def task() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("task")

    process.push_last("admin", note("admin"))
    process.push_close("client", note("client"))
    running = process.spawn(task(), "uses the client")
    process.push_drain("server", note("server"))
    process.push_close("newest", note("newest"))
    await asyncio.sleep(0)
    assert await process.close()
    assert seen == ["server", "newest", "task", "client", "admin"]
    assert running.cancelled()


async def test_a_task_that_fails_stops_the_process_with_its_error() -> None:
    process = make()

    async def dies() -> None:
        raise ValueError("broken")

    process.spawn(dies(), "dies")
    await asyncio.wait_for(process.stopping.wait(), 5)
    assert isinstance(process.failure, ValueError)
    assert await process.close()


async def test_a_task_that_finishes_is_awaited_and_others_are_cancelled() -> None:
    process, done = make(), []

    async def finishes() -> None:
        await process.stopping.wait()
        await asyncio.sleep(0.01)
        done.append("committed")

    process.spawn(finishes(), "worker", finishes=True)
    await asyncio.sleep(0)
    assert await process.close()
    assert done == ["committed"]


async def test_a_closer_that_hangs_or_fails_does_not_keep_the_others_open() -> None:
    process, seen = make(shutdown_ms=100), []

    async def first() -> None:
        seen.append("first")

    async def hangs() -> None:
        await asyncio.Event().wait()

    async def fails() -> None:
        raise RuntimeError("no")

    process.push_close("first", first)
    process.push_close("hangs", hangs)
    process.push_close("fails", fails)
    began = time.monotonic()
    assert not await process.close()
    assert time.monotonic() - began < 1.0
    assert seen == ["first"]


SCRIPT = """
import asyncio, sys
from services.runtime.process import run
from services.runtime.settings import GrpcServerSettings, ProcessSettings

async def close():
    print("closed", flush=True)

async def main(process):
    process.push_close("client", close)
    {body}

run(ProcessSettings(name="child", grpc=GrpcServerSettings(port=0), shutdown_ms={shutdown_ms}), main)
"""


def start(body: str, shutdown_ms: int = 3_000) -> subprocess.Popen[str]:
    source = textwrap.dedent(SCRIPT).format(body=body, shutdown_ms=shutdown_ms)
    return subprocess.Popen(
        [sys.executable, "-c", source],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "ending", ["await process.stopping.wait()", "return", "await asyncio.Event().wait()"]
)
def test_a_signal_closes_everything_and_exits_with_zero(number: signal.Signals, ending: str) -> None:
    child = start(f'print("ready", flush=True); {ending}')
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(number)
    out, err = child.communicate(timeout=10)
    assert (out, child.returncode) == ("closed\n", 0), err
    logs = [json.loads(line) for line in err.splitlines()]
    assert {line["service"] for line in logs} == {"child"}
    assert [line["event"] for line in logs[:2]] == ["starting", "stopping"]
    assert logs[1]["why"] == f"signal {number.name}"


def test_an_error_in_main_closes_everything_and_exits_with_one() -> None:
    out, err = start('raise ValueError("no port")').communicate(timeout=10)
    assert out == "closed\n"
    assert "no port" in err


def test_a_second_signal_ends_a_process_that_hangs() -> None:
    body = 'process.push_close("hangs", asyncio.Event().wait); print("ready", flush=True)'
    child = start(body, shutdown_ms=60_000)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    assert "starting" in child.stderr.readline()
    assert "stopping" in child.stderr.readline()
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=5)
    assert child.returncode == 128 + signal.SIGTERM
