"""Kafka's jars: resolved from Maven Central by pinned version, accepted by SHA-256, kept in the user's cache.

A jar is downloaded into a folder of its own, verified, and only then renamed to its place, so that neither
a broken download nor two launchers at once can leave a bad file there. A jar that no longer
matches its checksum is fetched again.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from local.errors import LocalError
from local.paths import cache_dir

PINS = Path(__file__).with_name("kafka_jars.txt")
PARALLEL_DOWNLOADS = 8
ATTEMPTS = 3
TIMEOUT_S = 60


class JarsFailed(LocalError):
    """At least one jar could not be had; the message names each with its reason."""


@dataclass(frozen=True)
class Pin:
    """One line of kafka_jars.txt."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def read_pins(text: str) -> list[Pin]:
    """Parses ``group:artifact:version sha256`` lines; '#' starts a comment. ValueError names a bad line."""
    pins = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        coordinate, _, digest = line.partition(" ")
        parts = coordinate.split(":")
        if len(parts) != 3 or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ValueError(
                f"kafka_jars.txt line {number}: expected 'group:artifact:version sha256', got {line!r}"
            )
        pins.append(Pin(parts[0], parts[1], parts[2], digest))
    if not pins:
        raise ValueError("kafka_jars.txt names no jar")
    return pins


def kafka_version(pins: list[Pin]) -> str:
    """The version of the broker among the pins."""
    return next(pin.version for pin in pins if pin.artifact == "kafka_2.13")


def sha256_of(path: Path) -> str:
    """Lower-case hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def jars(progress: Callable[[str], None] = lambda _line: None, pins: list[Pin] | None = None) -> Path:
    """The folder that holds exactly the pinned jars, downloading what is missing.

    Raises JarsFailed naming every jar that could not be downloaded or verified.
    """
    pins = read_pins(PINS.read_text()) if pins is None else pins
    folder = cache_dir() / f"kafka-{kafka_version(pins)}"
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        good = list(pool.map(lambda pin: _is_good(folder / pin.file_name, pin), pins))
        missing = [pin for pin, ok in zip(pins, good, strict=True) if not ok]
        if missing:
            progress(f"fetching {len(missing)} of {len(pins)} Kafka jars from Maven Central")
            failures = [text for text in pool.map(lambda pin: _fetch(pin, folder), missing) if text]
            if failures:
                raise JarsFailed(
                    f"Kafka's jars: {len(failures)} of {len(missing)} not fetched (Maven Central must be "
                    f"reachable once; then run the command again): {'; '.join(failures)}"
                )
    _drop_strangers(folder, {pin.file_name for pin in pins})
    return folder


def _is_good(path: Path, pin: Pin) -> bool:
    return path.is_file() and sha256_of(path) == pin.sha256


def _fetch(pin: Pin, folder: Path) -> str | None:
    """Puts one verified jar in its place; answers what went wrong, or None."""
    reason = ""
    for _attempt in range(ATTEMPTS):
        staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=folder))
        try:
            path = download(pin, staging)
            found = sha256_of(path)
            if found == pin.sha256:
                path.replace(folder / pin.file_name)
                return None
            reason = f"SHA-256 {found} is not the pinned {pin.sha256}"
        except Exception as error:  # the resolver raises many kinds; each is named to the user
            reason = f"{type(error).__name__}: {error}"
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return f"{pin.group}:{pin.artifact}:{pin.version} ({reason})"


def download(pin: Pin, repository: Path) -> Path:
    """Fetches one jar into a repository of its own; not verified yet. Raises what the resolver raises."""
    from jgo.maven import MavenContext, PythonResolver

    context = MavenContext(resolver=PythonResolver(), repo_cache=repository, timeout=TIMEOUT_S)
    resolved = context.project(pin.group, pin.artifact).at_version(pin.version).artifact().resolve()
    return Path(resolved)


def _drop_strangers(folder: Path, expected: set[str]) -> None:
    """A jar of an older pin would shadow a newer one on the class path."""
    for path in folder.glob("*.jar"):
        if path.name not in expected:
            path.unlink(missing_ok=True)
