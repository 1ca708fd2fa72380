"""The command line tools that docs/inspect.md shows, built with Go from their modules, once, into the user's
cache. A test that wants one which is neither there nor to be built is skipped, and says why."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from local.paths import cache_dir

TOOLS = {
    "grpcurl": "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4",
    "grpcui": "github.com/fullstorydev/grpcui/cmd/grpcui@v1.4.3",
    "evans": "github.com/ktr0731/evans@v0.10.11",
    "ghz": "github.com/bojand/ghz/cmd/ghz@v0.120.0",
}
BUILD_S = 300


def tool(name: str) -> Path:
    """The program, of the pinned version."""
    package = TOOLS[name]
    home = cache_dir() / "tools"
    program = home / f"{name}-{package.partition('@')[2]}" / name
    if program.is_file():
        return program
    if (go := shutil.which("go")) is None:
        pytest.skip(f"{name}: not built yet, and no Go on the PATH to build it with")
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as staging:
        try:
            done = subprocess.run(
                [go, "install", package], cwd=staging, env={**os.environ, "GOBIN": staging},
                capture_output=True, text=True, timeout=BUILD_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            pytest.skip(f"{name}: not built from {package} within {BUILD_S} s")
        if done.returncode:
            pytest.skip(f"{name}: not to be built from {package}: {done.stderr.strip()[-300:]}")
        program.parent.mkdir(exist_ok=True)
        # Whole or not at all.
        (Path(staging) / name).rename(program)
    return program
