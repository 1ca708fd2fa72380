"""The join on Flink as a jar: built by Maven from flink/ when it is missing or older than its sources.

Maven and a JDK are not brought by pip like the rest: Flink is an optional part of the project. The same JDK
runs Flink, because a newer Java than Flink supports (pip's runtime for Kafka is one) must not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from local.errors import LocalError, MissingPrerequisite
from local.java import java_version
from local.paths import REPOSITORY

MODULE = REPOSITORY / "flink"
JAR = MODULE / "target" / "recloop-join.jar"
SOURCES = (MODULE / "pom.xml", MODULE / "src" / "main", REPOSITORY / "protos" / "rec")
# What this release of Flink supports and the sources ask for.
OLDEST, NEWEST = 17, 21
BUILD_TIMEOUT_S = 900


class BuildFailed(LocalError):
    """Maven said no; its last lines are in the message."""


def jdk() -> Path:
    """Folder of a JDK that Flink runs on (JAVA_HOME, else that of the java on the PATH). Raises
    MissingPrerequisite.
    """
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    homes += [
        Path(found).resolve().parent.parent for name in ("javac", "java") if (found := shutil.which(name))
    ]
    for home in homes:
        if (home / "bin" / "javac").is_file():
            version = java_version(home / "bin" / "java")
            if version is not None and OLDEST <= version <= NEWEST:
                return home
    raise MissingPrerequisite(
        f"a JDK of version {OLDEST} to {NEWEST}",
        "to build and run the join on Flink",
        f"apt-get install openjdk-{OLDEST}-jdk-headless   (or set JAVA_HOME)",
    )


def maven() -> Path:
    """Path of mvn. Raises MissingPrerequisite."""
    found = shutil.which("mvn")
    if found is None:
        raise MissingPrerequisite("Maven", "to build the join on Flink", "apt-get install maven")
    return Path(found)


def jar(progress: Callable[[str], None] = lambda _line: None) -> Path:
    """The jar with everything in it: the job, Flink, the join alone. Raises MissingPrerequisite,
    BuildFailed.
    """
    home = jdk()
    if JAR.is_file() and JAR.stat().st_mtime >= max(map(_newest, SOURCES)):
        return JAR
    command = [str(maven()), "-q", "-B", "-Dstyle.color=never", "package"]
    progress("building the join on Flink (Maven fetches what it needs the first time)")
    done = subprocess.run(
        command,
        cwd=MODULE,
        env={**os.environ, "JAVA_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()[-3000:]
        raise BuildFailed(f"the join on Flink was not built (cd flink && mvn package); Maven said:\n{said}")
    # Maven leaves a jar alone that would be the same; to be newer than its sources it need not differ.
    JAR.touch()
    return JAR


def _newest(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return max(file.stat().st_mtime for file in files)
