"""A joiner as a process, and what it has committed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc

from local import compiled
from rec.v1 import worker_pb2, worker_pb2_grpc
from services.contract import topics
from services.contract.join_config import JoinConfig
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.settings import KafkaSettings

WINDOW_MS, BOUND_MS = 2000, 300
CONFIG = JoinConfig(window_us=WINDOW_MS * 1000, bound_us=BOUND_MS * 1000)
SESSION_MS = 2000


class JoinerProcess:
    """One ``python -m services.joiner``."""

    def __init__(self, bootstrap: str, port: int, log: Path, *settings: str, inputs: int = 3) -> None:
        self.port = port
        self.inputs = inputs
        command = [
            *(sys.executable, "-m", "services.joiner"),
            *("--grpc.port", str(port), "--grpc.admin_port", "0", "--grpc.metrics_port", "0"),
            *("--window_ms", str(WINDOW_MS), "--bound_ms", str(BOUND_MS), "--time_scale", "0"),
            *("--kafka.session_timeout_ms", str(SESSION_MS), "--kafka.bootstrap_servers", bootstrap),
            *settings,
        ]
        self.log = log
        with log.open("ab") as out:
            self.child = subprocess.Popen(command, stdout=out, stderr=out, cwd=compiled.home())

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()

    def terminate(self) -> int:
        self.child.terminate()
        return self.child.wait(20)

    async def status(self) -> worker_pb2.GetWorkerStatusResponse:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            stub = worker_pb2_grpc.WorkerServiceStub(channel)
            return await stub.GetWorkerStatus(
                worker_pb2.GetWorkerStatusRequest(), timeout=5, wait_for_ready=True
            )

    async def until_owning(self, partitions: int, within_s: float = 60.0) -> None:
        """Until it owns this many partitions and none of them is replaying."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            with contextlib.suppress(grpc.aio.AioRpcError):
                status = await self.status()
                if len(status.partitions) == self.inputs * partitions and status.state == "running":
                    return
            await asyncio.sleep(0.1)
        raise AssertionError(self.log.read_text()[-3000:])

    async def until_caught_up(self, partitions: int, within_s: float = 60.0) -> None:
        """Until it owns this many partitions, and everything that stands on them is committed."""
        deadline = time.monotonic() + within_s
        status = None
        while time.monotonic() < deadline:
            assert self.child.poll() is None, self.log.read_text()
            with contextlib.suppress(grpc.aio.AioRpcError):
                status = await self.status()
                rows = status.partitions
                if len(rows) == self.inputs * partitions and all(row.committed == row.end for row in rows):
                    return
            await asyncio.sleep(0.1)
        raise AssertionError(f"not caught up: {status}\n{self.log.read_text()[-3000:]}")


async def committed_records(kafka: KafkaSettings, suffix: str = "") -> dict[str, list]:
    """Everything on the output topics, read_committed."""
    outputs = [topics.suffixed(topic, suffix) for topic in topics.JOINED]
    found: dict[str, list] = {topic.name: [] for topic in outputs}
    reader = LogReader(kafka, "check")
    await reader.start()
    try:
        places = [TopicPartition(topic.name, p) for topic in outputs for p in range(topic.partitions)]
        ends = await reader.end_offsets(places)
        reader.assign(dict.fromkeys(places, 0))
        while any([await reader.position(place) < ends[place] for place in places]):
            for where, records in (await reader.poll(200, 5000)).items():
                found[where.topic] += records
    finally:
        await reader.stop()
    return found
