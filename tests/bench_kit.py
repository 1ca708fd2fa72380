"""Benchmarks run as their commands run them, in a process of their own: they choose an event loop and freeze
what the garbage collector looks at, and the tests after them must not inherit either.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from local.paths import REPOSITORY

_MARK = "RECLOOP_TEST_BENCHMARK"


def run_benchmark(
    name: str, arguments: list[str], out: Path, env: dict[str, str] | None = None
) -> dict[str, Any]:
    """bench-NAME.json of ``python -m benchmarks.bench_NAME``. No speed is judged: 1, a missed promise, is as
    good as 0. Fails when a process is left behind."""
    command = [sys.executable, "-m", f"benchmarks.bench_{name}", *arguments, "--out", str(out)]
    environment = {**os.environ, **(env or {}), _MARK: str(out)}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode in (0, 1), done.stderr[-4_000:]
    left = [
        process.name() for process in psutil.process_iter() if _environment(process).get(_MARK) == str(out)
    ]
    assert not left
    return json.loads((out / f"bench-{name}.json").read_text())


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}
