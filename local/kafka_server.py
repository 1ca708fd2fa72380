"""Apache Kafka as one local process (KRaft, one node): format, start, wait until usable, topics, stop.

Formatting takes a JVM start of its own (a second), and its result (cluster id, feature levels) is the same
for every run of one version, so the formatted folder is made once, kept in the cache, and copied. That of a
secured broker holds passwords: it is formatted at each start.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from local.certificates import write_secret
from local.child import POLL_S, Child
from local.errors import StartFailed
from local.java import START_CACHE, java, start_cache
from local.kafka_acls import create_acls
from local.kafka_config import (
    CLUSTER_ID,
    SCRAM,
    java_command,
    log4j_properties,
    secure_properties,
    server_properties,
)
from local.kafka_jars import jars
from local.paths import cache_dir
from local.ports import HOST, free_ports
from local.security import BROKER, Security
from local.topic_setup import create_topics
from services.contract import topics
from services.contract.access import IDENTITIES
from services.runtime.settings import KafkaSettings

START_TIMEOUT_S = 60.0
STOP_GRACE_S = 15.0
FORMATTED_FILES = ("meta.properties", "bootstrap.checkpoint")


class KafkaServer:
    """A broker with its data in ``folder``. The data outlive stop and kill, so that it can be started
    again.
    """

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        controller_port: int | None = None,
        security: Security | None = None,
    ) -> None:
        free = free_ports(2)
        self.port = free[0] if port is None else port
        self.controller_port = free[1] if controller_port is None else controller_port
        self.folder = folder
        self.log = folder / "server.log"
        self.child: Child | None = None
        self._security = security

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"{HOST}:{self.port}"

    def start(
        self, progress: Callable[[str], None] = lambda _line: None, *, make_cache: Path | None = None
    ) -> Child:
        """Starts the process and returns when it accepts connections. ``make_cache``: writes a start cache
        there when it ends (kafka_start_cache.py), instead of using one. Raises StartFailed,
        MissingPrerequisite.
        """
        jar_folder = jars(progress)
        cache = start_cache(jar_folder.name)
        options = [f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"]
        if make_cache is not None:
            options += [*START_CACHE, f"-XX:AOTCacheOutput={make_cache}"]
        elif cache is not None and cache.is_file():
            options += [*START_CACHE, f"-XX:AOTCache={cache}"]
        self._write_configuration(jar_folder)
        command = java_command(
            java(),
            jar_folder,
            "kafka.Kafka",
            str(self.folder / "server.properties"),
            options=options,
        )
        self.child = Child.start("kafka", command, self.folder / "output.log")
        self._wait_until_listening()
        return self.child

    @property
    def owner(self) -> KafkaSettings:
        """How to connect as who may do everything."""
        if self._security is None:
            return KafkaSettings(bootstrap_servers=self.bootstrap)
        return self._security.kafka(BROKER, self.bootstrap)

    def create_topics(self, wanted: Sequence[topics.Topic] = topics.ALL) -> None:
        """Creates what is missing and returns when every partition has a leader; a secured broker knows its
        rules then."""
        create_topics(self.owner, wanted)
        if self._security is not None:
            create_acls(self.owner)

    def stop(self, grace_s: float = STOP_GRACE_S) -> bool:
        """Ends it cleanly; answers False when it had to be killed."""
        return self.child.stop(grace_s) if self.child else True

    def kill(self) -> None:
        """kill -9."""
        if self.child:
            self.child.kill()

    def tail(self, lines: int = 20) -> str:
        """The end of its log, or of its output when it did not get that far."""
        from local.child import tail

        return tail(self.log if self.log.exists() else self.folder / "output.log", lines)

    def _write_configuration(self, jar_folder: Path) -> None:
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        text = server_properties(self.port, self.controller_port, data)
        if self._security is not None:
            own, password = self._security.folder / BROKER, self._security.password(BROKER)
            # Of two lines for one setting the last counts.
            text += secure_properties(self.port, self.controller_port, own, password)
        write_secret(self.folder / "server.properties", text.encode())
        (self.folder / "log4j2.properties").write_text(log4j_properties(self.log))
        if (data / "meta.properties").exists():
            return
        if self._security is not None:
            self._format_with_logins(jar_folder, self._security)
        else:
            template = formatted_template(jar_folder)
            for name in FORMATTED_FILES:
                shutil.copyfile(template / name, data / name)

    def _format_with_logins(self, jar_folder: Path, security: Security) -> None:
        """The passwords are not on the command line, where everybody could read them."""
        words = java_command(
            java(), jar_folder, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID,
            "-c", str(self.folder / "server.properties"),
        )  # fmt: skip
        for name in (*IDENTITIES, BROKER):
            words += ["--add-scram", f"{SCRAM}=[name={name},password={security.password(name)}]"]
        arguments = self.folder / "format.args"
        write_secret(arguments, "".join(f'"{word}"\n' for word in words[1:]).encode())
        try:
            _run_format([words[0], f"@{arguments}"])
        finally:
            arguments.unlink()

    def _wait_until_listening(self) -> None:
        assert self.child is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.child.exit_code is not None:
                raise StartFailed(
                    f"Kafka ended at start (port {self.port}); its log ends with:\n{self.tail()}"
                )
            with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
                return
            time.sleep(POLL_S)
        self.child.kill()
        raise StartFailed(
            f"Kafka was not ready within {START_TIMEOUT_S:.0f} s; its log ends with:\n{self.tail()}"
        )


def formatted_template(jar_folder: Path) -> Path:
    """A folder as Kafka's own storage tool formats it, made once per set of jars."""
    template = cache_dir() / f"{jar_folder.name}-formatted"
    if all((template / name).is_file() for name in FORMATTED_FILES):
        return template
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".format-") as name:
        staging = Path(name)
        properties = staging / "server.properties"
        properties.write_text(server_properties(9092, 9093, staging / "data"))
        command = java_command(
            java(), jar_folder, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties)
        )
        _run_format(command)
        template.mkdir(exist_ok=True)
        for file_name in FORMATTED_FILES:
            (staging / "data" / file_name).replace(template / file_name)
    return template


def _run_format(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise StartFailed(f"Kafka's storage could not be formatted: {said}")
