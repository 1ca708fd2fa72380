"""Figures that a command of the trainer prints: a process of its own, because the launcher knows no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from local.errors import LocalError
from local.paths import REPOSITORY
from local.processes import RUNTIME


def trainer_figures(command: str, options: Sequence[str]) -> dict[str, Any]:
    """The JSON object of ``python -m trainer <command>``. Raises LocalError when it fails, with what it
    said."""
    done = subprocess.run(
        [sys.executable, "-m", "trainer", command, *options],
        cwd=REPOSITORY,
        env={**os.environ, **RUNTIME},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LocalError(f"trainer {command} ended with status {done.returncode}: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
