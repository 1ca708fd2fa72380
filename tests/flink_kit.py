"""What the tests of the Flink job share: its settings, its committed output, and what that must be."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from oracles.join_oracle import joined
from oracles.join_traffic import Placed, logs_by_partition, said_in_kafka

from local import flink_jar
from local.flink_config import OUTPUTS
from services.contract.join_config import JoinConfig
from services.runtime.kafka_consumer import LogReader

WINDOW_MS, BOUND_MS = 2000, 300
CONFIG = JoinConfig(window_us=WINDOW_MS * 1000, bound_us=BOUND_MS * 1000)
JOIN_OPTIONS = (
    *("--window-ms", str(WINDOW_MS), "--bound-ms", str(BOUND_MS)),
    *("--checkpoint-interval-ms", "500"),
)
# The name of an output of the job, without what sets it apart: the joiner's.
JOINERS_NAME = {topic.name: topic.name.removesuffix("-flink") for topic in OUTPUTS}


def java() -> str:
    """The Java that the jar is built with and run by."""
    return str(flink_jar.jdk() / "bin" / "java")


class Job:
    """One ``java -jar recloop-join.jar``: Flink in one process."""

    def __init__(self, jar: Path, bootstrap: str, folder: Path, name: str, *options: str) -> None:
        self.folder = folder
        self.log, self.output = folder / f"{name}.log", folder / f"{name}.out"
        command = [
            *(java(), "-Xmx700m", "-XX:+UseSerialGC", "-jar", str(jar), "--bootstrap", bootstrap),
            *(*JOIN_OPTIONS, "--checkpoint-dir", str(folder / "checkpoints"), *options),
        ]
        with self.log.open("wb") as errors, self.output.open("wb") as out:
            self.child = subprocess.Popen(command, stdout=out, stderr=errors)

    def kill(self) -> None:
        """kill -9."""
        self.child.kill()
        self.child.wait()

    def ended(self, within_s: float = 90.0) -> int:
        """Its exit code."""
        return self.child.wait(within_s)

    def counted(self) -> dict[str, float]:
        """The line of JSON at the end of a bounded run."""
        return json.loads(self.output.read_text())


class Committed:
    """Reads the job's output topics from their beginning, read_committed, as far as they go."""

    def __init__(self, reader: LogReader) -> None:
        self.reader = reader
        self.records: dict[str, list] = {name: [] for name in JOINERS_NAME.values()}

    async def read(self) -> dict[str, list]:
        """Everything so far, by the name that the joiner would have used."""
        while polled := await self.reader.poll(300, 5000):
            for where, records in polled.items():
                name = JOINERS_NAME[where.topic]
                self.records[name] += [replace(record, topic=name) for record in records]
        return self.records


def numbers(folder: Path) -> list[int]:
    """The numbers of the complete checkpoints in a folder."""
    return [int(path.parent.name[4:]) for path in folder.glob("checkpoints/*/chk-*/_metadata")]


def runs(folder: Path) -> int:
    """How many runs have left a complete checkpoint in a folder."""
    return len({path.parents[1] for path in folder.glob("checkpoints/*/chk-*/_metadata")})


async def until(true: Callable[[], bool], child: subprocess.Popen, within_s: float = 60.0) -> None:
    """Until something is true, while a process lives."""
    deadline = time.monotonic() + within_s
    while not true():
        assert child.poll() is None, f"ended with {child.returncode}"
        assert time.monotonic() < deadline, "not within the time"
        await asyncio.sleep(0.1)


async def said_once(committed: Committed, placed: list[Placed], child: subprocess.Popen) -> int:
    """Waits until as much is committed as must be, and a little longer; it must be exactly the oracle's."""
    wanted = [joined(CONFIG, logs) for logs in logs_by_partition(placed)]
    count = sum(sum(of_partition.values()) for of_partition in wanted)
    deadline = time.monotonic() + 60
    while sum(map(len, (await committed.read()).values())) < count and time.monotonic() < deadline:
        assert child.poll() is None, f"ended with {child.returncode}"
    await asyncio.sleep(1.5)
    records = await committed.read()
    for partition, of_partition in enumerate(wanted):
        said = said_in_kafka(partition, records)
        assert said - of_partition == Counter(), "said twice or wrongly"
        assert of_partition - said == Counter(), "lost"
    return count
