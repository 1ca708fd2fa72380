"""``python -m local flink-join`` as a user runs it: beside a Kafka that is there, stopped by ``down``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from flink_kit import JOIN_OPTIONS, said_once
from oracles.join_traffic import closing, traffic

from local.paths import REPOSITORY, RunPaths
from local.state import StackState, read_state

pytestmark = [pytest.mark.flink, pytest.mark.integration]
JOB_MANAGER, TASK_MANAGER = "flink-jobmanager", "flink-taskmanager-1"


class Command:
    """One ``flink-join``, and other commands of the launcher on the same folder."""

    def __init__(self, bootstrap: str, folder: Path, rest_port: int) -> None:
        self.folder, self.log = folder, folder.with_suffix(".log")
        self.environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": bootstrap}
        self.child = self.start("flink-join", "--rest-port", str(rest_port), *JOIN_OPTIONS)

    def start(self, name: str, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "local", name, "--run-dir", str(self.folder), *options]
        with self.log.open("ab") as out:
            return subprocess.Popen(command, cwd=REPOSITORY, env=self.environment, stdout=out, stderr=out)

    def state(self) -> StackState | None:
        return read_state(RunPaths(self.folder).flink.state)

    def until_up(self) -> StackState:
        deadline = time.monotonic() + 150
        while (state := self.state()) is None or state.status != "up":
            assert self.child.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)
        return state


@pytest.fixture
def command(join_jar: Path, private_kafka, tmp_path: Path, free_ports) -> Iterator[Command]:
    """Started; what is left of it is ended."""
    one = Command(private_kafka.bootstrap, tmp_path / "run", free_ports(1)[0])
    yield one
    if one.child.poll() is None:
        one.child.send_signal(signal.SIGTERM)
    one.child.wait(60)


@pytest.mark.timeout(400)
async def test_it_joins_mends_a_dead_task_manager_and_leaves_no_process(command, send, committed) -> None:
    placed = [*traffic(11, 800), *closing()]
    state = command.until_up()
    assert "web interface" in command.log.read_text()
    await send(placed[:2000])
    psutil.Process(state.processes[TASK_MANAGER].pid).kill()
    await send(placed[2000:])
    assert await said_once(await committed(), placed, command.child) > 1200
    now = command.state()
    assert now is not None and now.processes[TASK_MANAGER].pid != state.processes[TASK_MANAGER].pid
    assert now.processes[JOB_MANAGER].pid == state.processes[JOB_MANAGER].pid
    assert command.start("down").wait(60) == 0
    assert command.child.wait(60) == 0
    assert [one.identity().process() for one in now.processes.values()] == [None, None]
