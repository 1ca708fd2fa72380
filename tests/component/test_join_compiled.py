"""The compiled join says what the plain one says: its own tests, run on the machine code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local import compiled

REPOSITORY = Path(__file__).resolve().parents[2]
RULES = (
    "unit/test_join_cases.py",
    "unit/test_join_policies.py",
    "unit/test_join_scan.py",
    "unit/test_join_wire.py",
    "contract/test_join_golden.py",
)


def python(*arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Runs this interpreter with ``path`` before everything else."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def test_the_rules_and_the_golden_logs_hold_for_the_machine_code() -> None:
    if compiled.home() != compiled.COPY:
        pytest.skip("the join is not compiled (make setup says why)")
    code = "import services.contract.join_matching as module; print(module.__file__)"
    where = python("-P", "-c", code, path=compiled.COPY).stdout
    assert Path(where.strip()).suffix == ".so"
    tests = [str(REPOSITORY / "tests" / name) for name in RULES]
    places = f"pythonpath={compiled.COPY} {REPOSITORY / 'tests'}"
    done = python("-P", "-m", "pytest", "-q", "-o", places, *tests, path=compiled.COPY)
    assert done.returncode == 0, done.stdout[-3000:]


def test_a_copy_of_other_sources_is_never_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiled, "COPY", tmp_path)
    assert compiled.home() == compiled.REPOSITORY
    digest = compiled._digest(compiled._sources())
    (tmp_path / "sources").write_text(digest)
    assert compiled.home() == tmp_path
    (tmp_path / "sources").write_text(digest[::-1])
    assert compiled.home() == compiled.REPOSITORY


def test_without_a_compiler_the_join_stays_plain_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compiled, "COPY", tmp_path / "compiled")
    monkeypatch.setenv("CC", "no-such-compiler")
    said: list[str] = []
    assert compiled.build(said.append) == 0
    assert "no C compiler" in said[0]
    assert compiled.home() == compiled.REPOSITORY
