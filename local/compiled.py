"""``compile``: the join as machine code, by mypyc, from the very same source files.

A copy of ``services`` with the compiled modules beside their sources stands in build/compiled; ``home`` is
the folder from which the launcher starts a process that joins. A copy that is not of the sources as they are
now is never used: then, and without a C compiler, the same files run as plain Python, slower.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from local.paths import REPOSITORY

COPY = REPOSITORY / "build" / "compiled"
# What a record passes through; pure Python with types, as mypyc wants it.
_CONTRACT = (
    *("join", "join_events", "join_labels", "join_matching", "join_memory", "join_output", "join_rows"),
    *("join_rules", "join_scan", "join_state", "join_timers", "join_wire", "join_label_first", "join_lookup"),
)
MODULES = (
    *(Path("services", "contract", f"{name}.py") for name in _CONTRACT),
    *(Path("services", "joiner", f"{name}.py") for name in ("outgoing", "said")),
)
_LOG = "compile.log"
_TIMEOUT_S = 600


def home() -> Path:
    """Where to start a process that joins: the compiled copy when it is of the sources as they are."""
    return COPY if _written("sources") == _digest(_sources()) else REPOSITORY


def build(say: Callable[[str], None]) -> int:
    """Brings the copy up to date; says what was done. Never fails a setup: the join also runs without."""
    if home() == COPY:
        say(f"the join is compiled, in {COPY.relative_to(REPOSITORY)}")
        return 0
    modules, sources = _digest(_modules()), _digest(_sources())
    if _written("modules") != modules:
        shutil.rmtree(COPY, ignore_errors=True)
        _copy()
        if problem := _compile():
            shutil.rmtree(COPY / "services")
            say(f"the join is not compiled ({problem}): it runs as plain Python, slower")
            return 0
        (COPY / "modules").write_text(modules)
    else:
        _copy()
    (COPY / "sources").write_text(sources)
    say(f"the join is compiled, in {COPY.relative_to(REPOSITORY)}")
    return 0


def _sources() -> list[Path]:
    return sorted((REPOSITORY / "services").rglob("*.py"))


def _modules() -> list[Path]:
    return [REPOSITORY / module for module in MODULES]


def _digest(files: Iterable[Path]) -> str:
    """Of the files, and of what compiles them."""
    digest = hashlib.sha256(f"{sys.version} mypyc {importlib.metadata.version('mypy')}".encode())
    for file in files:
        digest.update(f"\0{file.relative_to(REPOSITORY)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _written(name: str) -> str:
    file = COPY / name
    return file.read_text() if file.is_file() else ""


def _copy() -> None:
    """The sources as they are; compiled modules that stand there stay."""
    (COPY / "sources").unlink(missing_ok=True)
    if (COPY / "services").is_dir():
        for old in (COPY / "services").rglob("*.py"):
            old.unlink()
    shutil.copytree(
        REPOSITORY / "services",
        COPY / "services",
        ignore=shutil.ignore_patterns("__pycache__"),
        dirs_exist_ok=True,
    )


def _compile() -> str:
    """Why it did not work; empty when it did."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        return "no C compiler"
    command = [sys.executable, "-m", "mypyc", f"--config-file={REPOSITORY / 'pyproject.toml'}"]
    command += [str(module) for module in MODULES]
    environment = {**os.environ, "MYPYPATH": str(REPOSITORY / "protos" / "gen"), "MYPYC_OPT_LEVEL": "3"}
    with (COPY / _LOG).open("wb") as log:
        try:
            done = subprocess.run(
                command, cwd=COPY, env=environment, stdout=log, stderr=log, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"mypyc took more than {_TIMEOUT_S} s"
    shutil.rmtree(COPY / "build", ignore_errors=True)
    return "" if done.returncode == 0 else f"see {(COPY / _LOG).relative_to(REPOSITORY)}"
