"""A Flink cluster of two processes on this machine, for the SQL jobs of benchmarks/flink_sql.

One task manager with one slot, so that its CPU seconds are a per-core figure. It lives through all rounds:
the JVM has compiled Flink's code when the measured ones begin.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

from local.child import Child
from local.errors import MissingPrerequisite, StartFailed
from local.paths import REPOSITORY
from local.ports import HOST, free_ports

MODULE = REPOSITORY / "benchmarks" / "flink_sql"
JAR = MODULE / "target" / "recloop-flink-sql.jar"
BUILD_TIMEOUT_S = 900.0
START_TIMEOUT_S = 60.0
JOB_TIMEOUT_S = 300.0
HEAP_MB = 2560

OPENS = [
    word
    for name in ("lang", "util", "net", "nio", "time")
    for word in ("--add-opens", f"java.base/java.{name}=ALL-UNNAMED")
]
# The first compiler tier starts fastest; what these do is not measured.
SMALL = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
# A heap that is never short, and a young generation in which most rows die. Compiler threads that stay, so
# that what they used is known at the end.
TASK_MANAGER = (
    *(f"-Xms{HEAP_MB}m", f"-Xmx{HEAP_MB}m", f"-Xmn{HEAP_MB // 2}m", "-XX:+UseParallelGC"),
    "-XX:-UseDynamicNumberOfCompilerThreads",
)

# The job's own settings: exactly once, a commit a second, state on the heap, rows passed on without a copy.
JOB = {
    "execution.target": "remote",
    "parallelism.default": "1",
    "pipeline.object-reuse": "true",
    "state.backend.type": "hashmap",
    "execution.checkpointing.interval": "1 s",
    "execution.checkpointing.mode": "EXACTLY_ONCE",
    "table.exec.source.idle-timeout": "0",
}

SETTINGS = """
jobmanager.rpc.address: {host}
jobmanager.rpc.port: {rpc}
rest.address: {host}
rest.port: {rest}
classloader.resolve-order: parent-first
execution.checkpointing.dir: file://{checkpoints}
taskmanager.host: {host}
taskmanager.numberOfTaskSlots: 1
taskmanager.cpu.cores: 1
taskmanager.memory.framework.heap.size: 128mb
taskmanager.memory.framework.off-heap.size: 128mb
taskmanager.memory.task.heap.size: {heap}mb
taskmanager.memory.task.off-heap.size: 0
taskmanager.memory.managed.size: 0
taskmanager.memory.network.min: 64mb
taskmanager.memory.network.max: 64mb
taskmanager.memory.jvm-metaspace.size: 256mb
taskmanager.memory.jvm-overhead.min: 192mb
taskmanager.memory.jvm-overhead.max: 192mb
restart-strategy.type: none
"""


def build() -> None:
    """The jar and its libraries, made when the sources are newer. Raises MissingPrerequisite, StartFailed."""
    for command, what in (("mvn", "Maven"), ("javac", "a JDK >= 17")):
        if shutil.which(command) is None:
            raise MissingPrerequisite(
                what, "to build Flink SQL's side", "apt-get install maven   (or --ours-only)"
            )
    sources = [MODULE / "pom.xml", *(path for path in (MODULE / "src").rglob("*") if path.is_file())]
    if JAR.is_file() and JAR.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return
    done = subprocess.run(
        ["mvn", "-q", "-B", "package"],
        cwd=MODULE,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise StartFailed(f"{MODULE}: Maven failed:\n{(done.stdout + done.stderr)[-2000:]}")


def java_command(options: tuple[str, ...], main: str, *arguments: str) -> list[str]:
    """A main class of the jar or of Flink."""
    return ["java", *options, *OPENS, "-cp", f"{JAR}:{MODULE / 'target' / 'lib'}/*", main, *arguments]


class FlinkCluster:
    """A job manager and a task manager."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        self._folder, self._bootstrap = folder, bootstrap
        rpc, self._rest = free_ports(2)
        configuration = folder / "conf"
        configuration.mkdir(parents=True)
        text = SETTINGS.format(
            host=HOST, rpc=rpc, rest=self._rest, heap=HEAP_MB - 128, checkpoints=folder / "checkpoints"
        )
        (configuration / "config.yaml").write_text(text)
        self._environment = {**os.environ, "FLINK_CONF_DIR": str(configuration)}
        self._at = ("--configDir", str(configuration))
        entry = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
        self._jobs = self._start("job-manager", java_command(SMALL, entry, *self._at))
        worker = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        self._worker = self._start("task-manager", java_command(TASK_MANAGER, worker, *self._at))

    def _start(self, name: str, command: list[str]) -> Child:
        return Child.start(name, command, self._folder / f"{name}.log", env=self._environment)

    def until_ready(self) -> None:
        """Returns when the task manager's slot is free."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            for child in (self._jobs, self._worker):
                child.require_running()
            try:
                with urllib.request.urlopen(f"http://{HOST}:{self._rest}/overview", timeout=5) as answer:
                    if json.load(answer)["slots-available"] == 1:
                        return
            except OSError:
                pass
            time.sleep(0.1)
        raise StartFailed(f"Flink was not ready in {START_TIMEOUT_S:.0f} s:\n{self._worker.tail()}")

    def cpu_s(self) -> float:
        """CPU seconds of the task manager so far: all of its threads but the JVM's compiler."""
        used = psutil.Process(self._worker.pid).cpu_times()
        return float(used.user + used.system) - self.compiler_cpu_s()

    def compiler_cpu_s(self) -> float:
        """CPU seconds of the threads that compile: a job that runs for long does not need them."""
        ticks = 0
        for thread in Path(f"/proc/{self._worker.pid}/task").iterdir():
            try:
                name, rest = (thread / "stat").read_text().rsplit(")", 1)
            except OSError:
                continue  # it has ended
            if name.split("(", 1)[1].startswith(("C1 ", "C2 ")):
                user, system = rest.split()[11:13]
                ticks += int(user) + int(system)
        return ticks / os.sysconf("SC_CLK_TCK")

    def peak_mb(self) -> float:
        """Its largest resident set so far."""
        return self._worker.sample_memory() / 1e6

    def run(self, job: str, **values: object) -> None:
        """Sends a job (a file of flink_sql's resources) and returns when it has ended. ``values`` fill the
        holes of the SQL; those with a dot in their name are settings of Flink."""
        settings = {**JOB, "rest.address": HOST, "rest.port": self._rest, "bootstrap": self._bootstrap}
        arguments = [f"{key}={value}" for key, value in {**settings, **values}.items()]
        client = Child.start(
            f"client-{job}",
            java_command(SMALL, "recloop.sql.SqlJoin", job, *arguments),
            self._folder / "client.log",
            env=self._environment,
        )
        try:
            if not client.wait(JOB_TIMEOUT_S):
                raise TimeoutError(
                    f"Flink's job {job} did not end in {JOB_TIMEOUT_S:.0f} s:\n{client.tail()}"
                )
            if client.exit_code != 0:
                raise StartFailed(f"Flink's job {job} failed:\n{client.tail(40)}")
        finally:
            client.kill()

    def stop(self) -> None:
        """Ends both."""
        for child in (self._worker, self._jobs):
            child.stop(10)


def versions() -> Iterator[str]:
    """Flink, its Kafka connector and Java."""
    for name in ("flink-table-runtime", "flink-connector-kafka"):
        yield from (path.stem for path in (MODULE / "target" / "lib").glob(f"{name}-*.jar"))
    done = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=30, check=False)
    yield (done.stderr + done.stdout).splitlines()[0]
