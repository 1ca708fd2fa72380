"""Models on several sets of samples, judged on one truth: ``python -m trainer holdout`` as a process of its
own, because the launcher knows no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from local.errors import LocalError
from local.paths import REPOSITORY
from local.processes import RUNTIME


def holdout(
    truth: Path, sets: Mapping[str, Path], cut_us: int, seeds: int, options: Sequence[str]
) -> dict[str, Any]:
    """Its figures by name of the set. Raises LocalError when it fails, with what it said."""
    command = [sys.executable, "-m", "trainer", "holdout", "--truth", str(truth)]
    command += ["--cut-us", str(cut_us), "--seeds", str(seeds), *options]
    for name, path in sets.items():
        command += ["--train", f"{name}={path}"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, **RUNTIME}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise LocalError(f"trainer holdout ended with status {done.returncode}: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
