"""The command line tools that docs/inspect.md shows, built with Go from their modules, once, into the user's
cache. A test that wants one which is neither there nor to be built is skipped, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8s.checks.definitions import FetchFailed, build_program
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
    program = cache_dir() / "tools" / f"{name}-{source.partition('@')[2]}" / name
    if program.is_file():
        return program
    try:
        build_program(source, package, program, BUILD_S)
    except FetchFailed as error:
        pytest.skip(f"{name}: not to be built: {error}")
    return program
