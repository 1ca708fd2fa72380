"""The command line tools that docs/inspect.md shows, built with Go from their modules, once, into the user's
cache. A test that wants one which is neither there nor to be built is skipped, and says why."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from k8s.checks.definitions import FetchFailed, module
from local.paths import cache_dir

# Module and, in it, the program's package.
TOOLS = {
    "grpcurl": ("github.com/fullstorydev/grpcurl@v1.9.4", "./cmd/grpcurl"),
    "grpcui": ("github.com/fullstorydev/grpcui@v1.4.3", "./cmd/grpcui"),
    "evans": ("github.com/ktr0731/evans@v0.10.11", "."),
    "ghz": ("github.com/bojand/ghz@v0.120.0", "./cmd/ghz"),
}
BUILD_S = 300


def tool(name: str) -> Path:
    """The program, of the pinned version."""
    source, package = TOOLS[name]
    home = cache_dir() / "tools"
    program = home / f"{name}-{source.partition('@')[2]}" / name
    if program.is_file():
        return program
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as staging:
        made = Path(staging) / name
        try:
            done = subprocess.run(
                ["go", "build", "-o", str(made), package],
                cwd=module(source), env={**os.environ, "GOWORK": "off"},
                capture_output=True, text=True, timeout=BUILD_S, check=False,
            )  # fmt: skip
        except (FetchFailed, subprocess.TimeoutExpired) as error:
            pytest.skip(f"{name}: not to be built from {source}: {error}")
        if done.returncode:
            pytest.skip(f"{name}: not to be built from {source}: {done.stderr.strip()[-300:]}")
        program.parent.mkdir(exist_ok=True)
        # Whole or not at all.
        made.rename(program)
    return program
