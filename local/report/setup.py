"""What a run was made with: commit, seed, command, machine, and the settings that are not the defaults.

Every process logs its own when it starts (services.runtime.process), so what is reported is what ran.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from local.paths import REPOSITORY

UNKNOWN = "unknown (not a git checkout)"


def setup(
    command: str, seeds: Mapping[str, object], settings: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """``settings``: process -> setting -> value."""
    return {
        "commit": commit(REPOSITORY),
        "command": command,
        "seeds": dict(seeds),
        "machine": machine(),
        "settings": {process: dict(changed) for process, changed in settings.items() if changed},
        "reported_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def commit(folder: Path) -> str:
    """The commit that is checked out; what is not in it is said."""
    try:
        name = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return f"{name} and {len(changed.splitlines())} changed files" if changed else name


def machine() -> dict[str, Any]:
    """Where it ran."""
    return {
        "cpus": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def started_with(logs: Path) -> dict[str, dict[str, str]]:
    """What each process of a stack said when it started, the last time that it did, by process."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(logs.glob("*.log")):
        with path.open(errors="replace") as lines:
            for line in lines:
                if '"starting"' not in line:
                    continue
                said = _object(line)
                if said.get("event") == "starting" and isinstance(said.get("settings"), dict):
                    found[path.stem] = {name: str(value) for name, value in said["settings"].items()}
    return found


def _object(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
