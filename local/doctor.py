"""``doctor``: is everything here that the stack needs? One line per part; what is missing says how to mend
it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable

import psutil

from local import flink_jar, java, kafka_jars, redis_server
from local.errors import LocalError, MissingPrerequisite
from local.paths import REPOSITORY, cache_dir
from local.ports import Ports, require_free

OLDEST_PYTHON = (3, 11)
# As the README says what is needed; the disk behind the installation, for a run.
CORES = 2
MEMORY_GB = 6
DISK_GB = 2


def checks(ports: Ports) -> list[tuple[str, Callable[[], str]]]:
    """What is looked at: name, and a function that answers what it found or raises LocalError."""
    return [
        ("Python", _python),
        ("cores", _cores),
        ("memory", _memory),
        ("disk", _disk),
        ("Java", lambda: str(java.java())),
        ("Kafka", lambda: str(kafka_jars.jars(print))),
        ("Redis", lambda: str(redis_server.redis_binary())),
        ("ports", lambda: _ports(ports)),
    ]


def doctor(ports: Ports) -> int:
    """Prints one line per check; 0 when all are well, but for what only Flink needs."""
    failed = 0
    for name, check in checks(ports):
        try:
            print(f"ok       {name}: {check()}")
        except LocalError as error:
            failed += 1
            print(f"MISSING  {name}: {error}")
    try:
        print(f"ok       Flink (optional): {flink_jar.maven()}, {flink_jar.jdk()}")
    except LocalError as error:
        print(f"absent   Flink (optional): {error}")
    return 1 if failed else 0


def _python() -> str:
    found = sys.version_info[:2]
    if found < OLDEST_PYTHON:
        raise MissingPrerequisite(
            "Python >= 3.11", "by every process", "make setup PYTHON=<path of a newer python3>"
        )
    return f"{found[0]}.{found[1]} at {sys.executable}"


def _cores() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < CORES:
        raise LocalError(f"{cores} core; the figures of the demo need {CORES}")
    return str(cores)


def _memory() -> str:
    available = psutil.virtual_memory().available / 1e9
    if available < MEMORY_GB:
        raise LocalError(f"{available:.1f} GB free; the stack may take {MEMORY_GB} GB. Close other programs")
    return f"{available:.1f} GB free"


def _disk() -> str:
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    free = {place: shutil.disk_usage(place).free / 1e9 for place in (REPOSITORY, cache)}
    for place, gigabytes in free.items():
        if gigabytes < DISK_GB:
            raise LocalError(f"{gigabytes:.1f} GB free at {place}; {DISK_GB} GB are needed")
    return f"{min(free.values()):.0f} GB free"


def _ports(ports: Ports) -> str:
    require_free(ports.by_user())
    return f"{len(ports.by_user())} ports free, {ports.redis} (Redis) to {ports.services['trainer'].metrics}"
