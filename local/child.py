"""One process of the stack: how it starts, is watched and is stopped.

Every child leads a session of its own, so that Ctrl-C reaches only the launcher (which stops the children in
order), and signals go to the whole group. All children are started from one thread that lives as long as
the launcher: the kernel's death signal is tied to the thread that forked.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from local.errors import StartFailed

GUARD = Path(__file__).with_name("guard.py")
POLL_S = 0.05
TAIL_BYTES = 64 * 1024

_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


@dataclass(frozen=True)
class Identity:
    """A process that cannot be confused with a later one that got the same pid."""

    pid: int
    started_at: float

    def process(self) -> psutil.Process | None:
        """The process, if it is still this one and runs."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started_at) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


@dataclass
class Child:
    """A started process. ``exit_code`` is None while it runs; negative = ended by that signal."""

    name: str
    log: Path
    popen: subprocess.Popen[bytes]
    identity: Identity
    spawned_at: float = field(default_factory=time.monotonic)
    peak_bytes: int = 0
    stopping: bool = False

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        *,
        nice: int = 0,
    ) -> Child:
        """Starts ``command`` with output appended to ``log``, at a priority (local.processes)."""
        log.parent.mkdir(parents=True, exist_ok=True)
        guarded = [*guard(nice), *command]

        def spawn() -> subprocess.Popen[bytes]:
            with log.open("ab") as output:
                return subprocess.Popen(
                    guarded,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=None if env is None else dict(env),
                    cwd=cwd,
                    start_new_session=True,
                )

        popen = _spawner.submit(spawn).result()
        return cls(name, log, popen, Identity(popen.pid, _created_at(popen.pid)))

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def exit_code(self) -> int | None:
        return self.popen.poll()

    def tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        return tail(self.log, lines)

    def require_running(self) -> None:
        """Raises StartFailed with the last log lines when it has ended."""
        if self.exit_code is not None:
            raise StartFailed(
                f"{self.name} {describe_exit(self.exit_code)}; {self.log} ends with:\n{self.tail()}"
            )

    def send(self, number: int) -> None:
        """Signals the process and whatever it started."""
        with suppress(ProcessLookupError, PermissionError):
            if self.exit_code is None:
                os.killpg(self.pid, number)

    def stop(self, grace_s: float) -> bool:
        """SIGTERM, then SIGKILL after the grace; answers whether it went by itself. Reaps it."""
        self.stopping = True
        self.sample_memory()
        self.send(signal.SIGTERM)
        gone = self.wait(grace_s)
        if not gone:
            self.kill()
        else:
            self._sweep_group()
        return gone

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends it at once."""
        self.stopping = True
        self.sample_memory()
        self.send(number)
        self.popen.wait()
        self._sweep_group()

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended within the time."""
        try:
            self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def sample_memory(self) -> int:
        """Peak resident bytes so far: the kernel's high-water mark, where there is one."""
        if self.exit_code is None:
            with suppress(OSError, psutil.Error):
                self.peak_bytes = max(self.peak_bytes, peak_rss_bytes(self.pid))
        return self.peak_bytes

    def _sweep_group(self) -> None:
        """A child's own children must not outlive it."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def guard(nice: int = 0) -> list[str]:
    """What stands before a command line, so that the process dies with this one; ``nice``: its priority."""
    return [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), str(nice)]


def current_identity() -> Identity:
    """This process."""
    return Identity(os.getpid(), _created_at(os.getpid()))


def _created_at(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return 0.0


def peak_rss_bytes(pid: int) -> int:
    """Highest resident size of a process (VmHWM on Linux, the present size elsewhere)."""
    if sys.platform == "linux":
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process(pid).memory_info().rss)


def describe_exit(code: int) -> str:
    """'ended with status 3' or 'was killed by SIGKILL'."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with status {code}"


def tail(path: Path, lines: int) -> str:
    """The last lines of a file, reading at most 64 KiB."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"(no log: {error.strerror})"
    return "\n".join(text.splitlines()[-lines:])
