"""The job on a cluster of processes: its task manager is killed, then all of it goes and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flink_kit import JOIN_OPTIONS, said_once
from oracles.join_traffic import closing, traffic

from local.errors import LocalError
from local.flink_cluster import JOB_MANAGER, FlinkCluster
from local.flink_config import FlinkShape

pytestmark = [pytest.mark.flink, pytest.mark.integration]
OPTIONS = (*JOIN_OPTIONS, "--parallelism", "2")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Callable[[], FlinkCluster]]:
    """Starts clusters in one folder, one after the other, each with one task manager."""
    started: list[FlinkCluster] = []

    def start() -> FlinkCluster:
        started.append(FlinkCluster(tmp_path / "flink", FlinkShape(heartbeat_timeout_ms=5_000)))
        started[-1].start(["one"])
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.mark.timeout(400)
async def test_a_killed_task_manager_and_a_cluster_started_again_lose_nothing_and_say_nothing_twice(
    cluster, private_kafka, send, committed
) -> None:
    placed, hurry = [*traffic(8, 3000), *closing()], asyncio.Event()
    options = ("--bootstrap", private_kafka.bootstrap, *OPTIONS)
    flink = await asyncio.to_thread(cluster)
    load = asyncio.create_task(send(placed, hurry))
    await asyncio.to_thread(flink.submit, *options)

    flink.children["one"].kill()
    before = flink.job().checkpoints
    flink.start_task_manager("one")
    while flink.job().checkpoints <= before or flink.working() != ["one"]:
        await asyncio.sleep(0.2)
        flink.require_running()
    assert not load.done(), "killed after the load: proves little"

    for child in flink.children.values():
        child.kill()
    assert flink.newest_checkpoint()
    assert not load.done(), "killed after the load: proves little"
    flink = await asyncio.to_thread(cluster)
    await asyncio.to_thread(flink.submit, *options)

    hurry.set()
    await load
    assert await said_once(await committed(), placed, flink.children[JOB_MANAGER].popen) > 5000


def test_options_that_the_job_refuses_are_said_by_whoever_submits_it(cluster, private_kafka) -> None:
    flink = cluster()
    with pytest.raises(LocalError, match=r"flink-join: --window-ms=0: 1 to"):
        flink.submit("--bootstrap", private_kafka.bootstrap, "--window-ms", "0")
