"""``flink-join``: the join on a Flink cluster of processes, on the Kafka of a running stack or the user's.

It runs beside the joiner and writes topics of its own (``samples-flink``, ...). It goes on from its newest
checkpoint; ``--fresh`` says everything again. Ctrl-C or ``down`` stops it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

from local.child import Child, current_identity
from local.errors import LocalError, NotRunning
from local.flink_cluster import JOB_MANAGER, FlinkCluster
from local.flink_config import OUTPUTS, FlinkShape
from local.flink_jar import jar
from local.paths import RunPaths
from local.ports import require_free
from local.state import ProcessState, StackState, read_state, write_state
from local.up import Interrupted, interruptible, report_death, require_down, say

WATCH_S = 1.0
# A failing task is started again by Flink; a job that stays away this long is said to the user.
AWAY_S = 60.0
MAX_TASK_MANAGERS = 16


def build() -> int:
    """``flink-jar``: builds the jar when it is older than its sources, and says where it is."""
    say(str(jar(say)))
    return 0


def flink_join(paths: RunPaths, rest_port: int, task_managers: int, job_options: Sequence[str]) -> int:
    """Foreground. 0 when it was stopped; 1 when the job or a process ended by itself.

    ``job_options``: as ``--help`` of the jar lists them; the address of Kafka is added. Raises LocalError.
    """
    if not 1 <= task_managers <= MAX_TASK_MANAGERS:
        raise LocalError(f"--task-managers {task_managers}: 1 to {MAX_TASK_MANAGERS}")
    flink = paths.flink
    require_down(flink)
    bootstrap = kafka_bootstrap(paths, os.environ)
    require_free({"Flink": rest_port})
    jar(say)
    shape = FlinkShape()
    cluster = FlinkCluster(flink.root, shape, rest_port)
    names = [f"flink-taskmanager-{number}" for number in range(1, task_managers + 1)]
    parallelism = ("--parallelism", str(task_managers * shape.slots))
    code = 0
    with interruptible() as ignore_interrupts:
        try:
            say(f"starting Flink: a job manager, {task_managers} task manager(s)")
            _record(flink, cluster, bootstrap, "starting")
            cluster.start(names)
            _record(flink, cluster, bootstrap, "starting")
            cluster.submit("--bootstrap", bootstrap, *parallelism, *job_options)
            _record(flink, cluster, bootstrap, "up")
            say(f"the join runs on Flink: {cluster.url} (web interface and REST); logs in {flink.logs}")
            say(f"it reads Kafka at {bootstrap} and writes {', '.join(topic.name for topic in OUTPUTS)}")
            say("Ctrl-C or 'make down' stops it; started again it goes on where it was")
            code = _watch(cluster, lambda: _record(flink, cluster, bootstrap, "up"))
        except Interrupted as asked:
            say(f"{asked}: stopping")
        finally:
            ignore_interrupts()
            cluster.close()
            _record(flink, cluster, bootstrap, "down")
    return code


def kafka_bootstrap(paths: RunPaths, environ: Mapping[str, str]) -> str:
    """KAFKA_BOOTSTRAP_SERVERS, else the Kafka of the running stack. Raises NotRunning."""
    given = environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        return given
    state = read_state(paths.state)
    if state is None or not state.runs():
        raise NotRunning("no Kafka to join from: start a stack (make up), or set KAFKA_BOOTSTRAP_SERVERS")
    return state.kafka_bootstrap


def _watch(cluster: FlinkCluster, restarted: Callable[[], None]) -> int:
    """Until something ends; answers 1. A task manager that dies is started again, as a cluster would."""
    well_at = time.monotonic()
    while True:
        time.sleep(WATCH_S)
        for name, child in list(cluster.children.items()):
            if child.exit_code is not None:
                report_death(child)
                if name == JOB_MANAGER:
                    return 1
                cluster.start_task_manager(name)
                restarted()
        job = cluster.job()
        if job.runs:
            well_at = time.monotonic()
        elif job.state in ("FAILED", "CANCELED", "FINISHED"):
            say(f"the job is {job.state}: {cluster.failure() or 'nobody says why'}")
            return 1
        elif time.monotonic() - well_at > AWAY_S:
            say(f"the job has not run for {AWAY_S:.0f} s (it is {job.state}): {cluster.url}")
            well_at = time.monotonic()


def _record(flink: RunPaths, cluster: FlinkCluster, bootstrap: str, status: str) -> None:
    """For status and down, as a stack of its own."""
    processes = {} if status == "down" else {n: _process(c, cluster) for n, c in cluster.children.items()}
    write_state(flink.state, StackState(status, current_identity(), bootstrap, "none", "none", processes))


def _process(child: Child, cluster: FlinkCluster) -> ProcessState:
    port = cluster.rest_port if child.name == JOB_MANAGER else 0
    return ProcessState(child.pid, child.identity.started_at, str(child.log), grpc=port)
