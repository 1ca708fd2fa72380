"""A process that the launcher starts aside leaves the machine to those that serve."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from local.child import Child, guard
from local.processes import ASIDE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="priorities of other kernels differ")

BUSY = "import os; os.sched_setaffinity(0, {int(os.environ['CORE'])})\nwhile True: pass"

# Of this test, and of what it starts aside.
OWN = os.nice(0)
LOWER = min(19, OWN + ASIDE)


def busy(name: str, folder: Path, core: int, nice: int) -> Child:
    command = [sys.executable, "-c", BUSY]
    return Child.start(name, command, folder / f"{name}.log", {**os.environ, "CORE": str(core)}, nice=nice)


def used_s(child: Child) -> float:
    return psutil.Process(child.pid).cpu_times().user


def test_on_a_full_core_a_process_aside_gets_the_smaller_part_though_each_leads_a_session(
    tmp_path: Path,
) -> None:
    core = min(os.sched_getaffinity(0))
    pair = [busy("serving", tmp_path, core, 0), busy("aside", tmp_path, core, ASIDE)]
    try:
        deadline = time.monotonic() + 30
        # Behind their starts, which are quicker for the one that has more.
        while min(map(used_s, pair)) < 0.2:
            assert time.monotonic() < deadline and all(child.exit_code is None for child in pair)
            time.sleep(0.05)
        began = [used_s(child) for child in pair]
        while used_s(pair[0]) - began[0] < 1.5:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        serving, aside = (used_s(child) - start for child, start in zip(pair, began, strict=True))
        assert 0.1 * serving < aside < 0.6 * serving
        assert [psutil.Process(child.pid).nice() for child in pair] == [OWN, LOWER]
    finally:
        for child in pair:
            child.kill()


def test_a_process_aside_in_the_launchers_session_leaves_the_session_as_it_is(tmp_path: Path) -> None:
    session = Path("/proc/self/autogroup")
    if not session.exists():
        pytest.skip("this kernel shares the CPU out among processes alone")
    before = session.read_text()
    guarded = [*guard(ASIDE), sys.executable, "-c", "import os; print(os.nice(0))"]
    assert subprocess.run(guarded, capture_output=True, text=True, check=True).stdout == f"{LOWER}\n"
    assert session.read_text() == before
