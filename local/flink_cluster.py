"""A Flink cluster of processes on this machine: one job manager, some task managers, one job.

All of them run from the jar of the join, which has Flink in it: nothing else is downloaded. The job manager
keeps the job through the death of any task manager; checkpoints in ``folder`` outlive all of them, and a new
cluster in the same folder goes on from the newest.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.child import Child
from local.errors import LocalError, StartFailed
from local.flink_config import (
    FlinkShape,
    cluster_settings,
    flink_command,
    job_manager_flags,
    task_manager_flags,
)
from local.flink_jar import jar, jdk
from local.ports import HOST, free_ports

JOB_MANAGER = "flink-jobmanager"
START_TIMEOUT_S = 60.0
SUBMIT_TIMEOUT_S = 120.0
STOP_GRACE_S = 15.0
POLL_S = 0.1


@dataclass(frozen=True)
class JobState:
    """The job as the job manager sees it. ``checkpoints``: completed since the job manager started."""

    state: str
    running_tasks: int
    tasks: int
    checkpoints: int

    @property
    def runs(self) -> bool:
        """Whether every task runs."""
        return self.state == "RUNNING" and 0 < self.tasks == self.running_tasks


NO_JOB = JobState("none", 0, 0, 0)


class FlinkCluster:
    """One cluster; ``close`` ends every process. Constructing it builds the jar when needed."""

    def __init__(self, folder: Path, shape: FlinkShape | None = None, rest_port: int | None = None) -> None:
        self._home, self._jar = jdk(), jar()
        self._shape = shape or FlinkShape()
        ports = free_ports(2)
        self.rest_port = ports[1] if rest_port is None else rest_port
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.children: dict[str, Child] = {}
        # Each start of a task manager is a new one to Flink: its name, a dot, a number.
        self._ids: dict[str, str] = {}
        configuration = folder / "conf"
        for made in (configuration, self.checkpoints, folder / "scratch"):
            made.mkdir(parents=True, exist_ok=True)
        self._configuration = configuration
        text = cluster_settings(self._shape, ports[0], self.rest_port, self.checkpoints, folder / "scratch")
        (configuration / "config.yaml").write_text(text)

    @property
    def url(self) -> str:
        """Of Flink's web interface and REST."""
        return f"http://{HOST}:{self.rest_port}"

    # -- processes -----------------------------------------------------------------------------------------

    def start(self, task_managers: Sequence[str]) -> None:
        """The job manager and these task managers, until all know each other. Raises StartFailed."""
        entry = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
        options = ("--configDir", str(self._configuration))
        command = flink_command(self._home, self._jar, entry, *options, flags=job_manager_flags())
        self._spawn(JOB_MANAGER, command)
        for name in task_managers:
            self.start_task_manager(name)
        self._until(lambda: len(self.task_managers()) == len(task_managers), START_TIMEOUT_S, "start")

    def start_task_manager(self, name: str) -> None:
        """A process, also in place of a dead one of this name."""
        number = int(self._ids.get(name, "x.0").rpartition(".")[2]) + 1
        self._ids[name] = f"{name}.{number}"
        entry = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        options = (
            *("--configDir", str(self._configuration)),
            *("-D", f"taskmanager.resource-id={self._ids[name]}"),
        )
        flags = task_manager_flags(self._shape)
        self._spawn(name, flink_command(self._home, self._jar, entry, *options, flags=flags))

    def _spawn(self, name: str, command: list[str]) -> None:
        self.children[name] = Child.start(
            name,
            command,
            self.folder / "logs" / f"{name}.log",
            env={**os.environ, "FLINK_CONF_DIR": str(self._configuration)},
            cwd=self.folder,
        )

    def require_running(self) -> None:
        """Raises StartFailed, with the end of its log, when a process has ended by itself."""
        for child in self.children.values():
            child.require_running()

    def close(self) -> None:
        """Ends every process; the newest checkpoint stays."""
        for child in reversed(self.children.values()):
            child.stop(STOP_GRACE_S)

    # -- the job -------------------------------------------------------------------------------------------

    def submit(self, *options: str) -> None:
        """``flink run`` from the newest checkpoint, until every task runs and a checkpoint is complete.

        ``options``: as ``--help`` of the jar lists them. Raises LocalError with what the job said about them.
        """
        newest = () if "--fresh" in options else self.newest_checkpoint()
        restored = ("-s", str(newest[0])) if newest else ()
        entry = "org.apache.flink.client.cli.CliFrontend"
        arguments = ("run", "-d", *restored, str(self._jar), *options)
        log = self.folder / "logs" / "submit.log"
        log.unlink(missing_ok=True)
        command = flink_command(
            self._home, self._jar, entry, *arguments, flags=job_manager_flags(), log_level="ERROR"
        )
        environment = {**os.environ, "FLINK_CONF_DIR": str(self._configuration)}
        client = Child.start("flink run", command, log, env=environment, cwd=self.folder)
        if not client.wait(SUBMIT_TIMEOUT_S):
            client.kill()
        if client.exit_code != 0:
            raise LocalError(f"the job was not taken:\n{client.tail(12)}")
        self._until(lambda: self.job().runs and self.job().checkpoints > 0, START_TIMEOUT_S, "run the job")

    def newest_checkpoint(self) -> tuple[Path, ...]:
        """The newest complete checkpoint of any job of this folder, if there is one: it has ``_metadata``,
        which is written last.
        """
        complete = list(self.checkpoints.glob("*/chk-*/_metadata"))
        return (max(complete, key=lambda path: path.stat().st_mtime).parent,) if complete else ()

    def job(self) -> JobState:
        """The job that was submitted last."""
        with suppress(OSError, ValueError, KeyError, http.client.HTTPException):
            jobs = self.rest("/jobs/overview")["jobs"]
            if jobs:
                last = max(jobs, key=lambda job: job["start-time"])
                counts = self.rest(f"/jobs/{last['jid']}/checkpoints")["counts"]
                tasks = last["tasks"]
                return JobState(last["state"], tasks["running"], tasks["total"], counts["completed"])
        return NO_JOB

    def failure(self) -> str:
        """Why the job failed last, as Flink says it; empty when it has not."""
        with suppress(OSError, ValueError, KeyError, IndexError, http.client.HTTPException):
            last = max(self.rest("/jobs/overview")["jobs"], key=lambda job: job["start-time"])
            entries = self.rest(f"/jobs/{last['jid']}/exceptions")["exceptionHistory"]["entries"]
            return root_cause(entries[0]["stacktrace"])
        return ""

    def task_managers(self) -> list[str]:
        """The names of those that the job manager counts as alive, in their present process."""
        with suppress(OSError, ValueError, KeyError, http.client.HTTPException):
            known = {manager["id"] for manager in self.rest("/taskmanagers")["taskmanagers"]}
            return [name for name, present in self._ids.items() if present in known]
        return []

    def working(self) -> list[str]:
        """The names of the task managers that tasks of the job run on."""
        found: set[str] = set()
        with suppress(OSError, ValueError, KeyError, http.client.HTTPException):
            for job in self.rest("/jobs")["jobs"]:
                for vertex in self.rest(f"/jobs/{job['id']}")["vertices"]:
                    places = self.rest(f"/jobs/{job['id']}/vertices/{vertex['id']}/taskmanagers")
                    found |= {
                        place["taskmanager-id"]
                        for place in places["taskmanagers"]
                        if place["status-counts"]["RUNNING"]
                    }
        return [name for name, present in self._ids.items() if present in found]

    def rest(self, path: str) -> Any:
        """The JSON that Flink answers. Raises OSError, ValueError, HTTPException."""
        connection = http.client.HTTPConnection(HOST, self.rest_port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            if response.status != http.HTTPStatus.OK:
                raise ValueError(f"{path}: {response.status}")
            return json.loads(body)
        finally:
            connection.close()

    def _until(self, true: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not true():
            self.require_running()
            if time.monotonic() > deadline:
                logs = self.folder / "logs"
                raise StartFailed(f"Flink did not {what} within {timeout_s:.0f} s; logs in {logs}")
            time.sleep(POLL_S)


def root_cause(stack_trace: str) -> str:
    """The line of Java's stack trace that names what everything else follows from."""
    lines = stack_trace.strip().splitlines()
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return causes[-1] if causes else lines[0]
