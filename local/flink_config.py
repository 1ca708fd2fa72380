"""Flink's configuration as text: a small cluster of processes on one machine, and why. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from local.ports import HOST
from services.contract import topics

FRAMEWORK_MB, OFF_HEAP_MB, NETWORK_MB, MANAGED_MB = 128, 128, 64, 32
METASPACE_MB, OVERHEAD_MB = 256, 192
JOB_MANAGER_HEAP_MB = 512
KEPT_CHECKPOINTS = 3
# What the job writes unless it is told otherwise, so that it may run beside the joiner.
OUTPUTS = tuple(
    replace(topic, name=f"{topic.name}-flink")
    for topic in (topics.SAMPLES, topics.LATE_EVENTS, topics.DEAD_LETTERS)
)


@dataclass(frozen=True)
class FlinkShape:
    """What a cluster is made of.

    ``heartbeat_timeout_ms``: a task manager that has been silent for this long counts as dead.
    ``task_heap_mb`` holds the joins of the partitions of one task manager, and a copy of each while it is
    written.
    """

    slots: int = 2
    task_heap_mb: int = 384
    heartbeat_timeout_ms: int = 10_000


def cluster_settings(
    shape: FlinkShape, rpc_port: int, rest_port: int, checkpoints: Path, scratch: Path
) -> str:
    """config.yaml of every process of a cluster that listens on 127.0.0.1 only."""
    settings = {
        "jobmanager.rpc.address": HOST,
        "jobmanager.rpc.port": rpc_port,
        "jobmanager.bind-host": HOST,
        "rest.address": HOST,
        "rest.bind-address": HOST,
        "rest.port": rest_port,
        "taskmanager.host": HOST,
        "taskmanager.bind-host": HOST,
        "taskmanager.numberOfTaskSlots": shape.slots,
        "web.submit.enable": "false",
        "io.tmp.dirs": scratch,
        # Work on every task manager.
        "taskmanager.load-balance.mode": "SLOTS",
        # The jar is the cluster's own class path too: one copy of Kafka's classes, the parent's.
        "classloader.resolve-order": "parent-first",
        "heartbeat.interval": max(500, shape.heartbeat_timeout_ms // 5),
        "heartbeat.timeout": shape.heartbeat_timeout_ms,
        # For ever: what cannot be mended by a restart says so itself and ends the job.
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "200 ms",
        "restart-strategy.exponential-delay.max-backoff": "5 s",
        "restart-strategy.exponential-delay.reset-backoff-threshold": "30 s",
        "execution.checkpointing.dir": checkpoints.as_uri(),
        "execution.checkpointing.num-retained": KEPT_CHECKPOINTS,
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        # A checkpoint that fails is tried again: a broker that restarts must not fail the job by that alone.
        # All tries together take less than the timeout of a transaction.
        "execution.checkpointing.timeout": "30 s",
        "execution.checkpointing.tolerable-failed-checkpoints": 10,
        "taskmanager.cpu.cores": 1,
        "taskmanager.memory.framework.heap.size": f"{FRAMEWORK_MB}mb",
        "taskmanager.memory.framework.off-heap.size": f"{OFF_HEAP_MB}mb",
        "taskmanager.memory.task.heap.size": f"{shape.task_heap_mb}mb",
        "taskmanager.memory.task.off-heap.size": "0",
        "taskmanager.memory.managed.size": f"{MANAGED_MB}mb",
        "taskmanager.memory.network.min": f"{NETWORK_MB}mb",
        "taskmanager.memory.network.max": f"{NETWORK_MB}mb",
        "taskmanager.memory.jvm-metaspace.size": f"{METASPACE_MB}mb",
        "taskmanager.memory.jvm-overhead.min": f"{OVERHEAD_MB}mb",
        "taskmanager.memory.jvm-overhead.max": f"{OVERHEAD_MB}mb",
    }
    return "".join(f"{key}: {value}\n" for key, value in settings.items())


def task_manager_flags(shape: FlinkShape) -> tuple[str, ...]:
    """Java's limits as the settings state them."""
    return (
        f"-Xmx{FRAMEWORK_MB + shape.task_heap_mb}m",
        f"-XX:MaxDirectMemorySize={OFF_HEAP_MB + NETWORK_MB}m",
        f"-XX:MaxMetaspaceSize={METASPACE_MB}m",
    )


def job_manager_flags() -> tuple[str, ...]:
    """Java's limits of the job manager and of the client."""
    return (f"-Xmx{JOB_MANAGER_HEAP_MB}m",)


def flink_command(
    home: Path, jar: Path, main: str, *arguments: str, flags: tuple[str, ...] = (), log_level: str = "WARN"
) -> list[str]:
    """Command line of one of Flink's main classes, which the jar has in it; ``home``: a JDK."""
    opened = [
        part
        for name in ("lang", "util", "net", "nio", "time")
        for part in ("--add-opens", f"java.base/java.{name}=ALL-UNNAMED")
    ]
    # The serial collector takes the least memory and no threads; heaps are small.
    return [
        str(home / "bin" / "java"),
        *flags,
        "-XX:+UseSerialGC",
        f"-Djoin.log={log_level}",
        *opened,
        *("-cp", str(jar), main, *arguments),
    ]
