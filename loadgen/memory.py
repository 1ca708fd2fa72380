"""Peak memory of the stack's processes, as the kernel counted it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def peak_mb(run_dir: Path) -> dict[str, float]:
    """Highest resident size so far, in MB (10^6 bytes), by process name: this one, and those in the
    launcher's state.json. Processes elsewhere (no state, no /proc) are left out.
    """
    pids = {"loadgen": os.getpid()}
    try:
        state = json.loads((run_dir / "state.json").read_text())
        pids |= {name: int(one["pid"]) for name, one in state["processes"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    peaks = {name: _peak_mb(pid) for name, pid in pids.items()}
    return {name: peak for name, peak in peaks.items() if peak is not None}


def _peak_mb(pid: int) -> float | None:
    try:
        found = _PEAK.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return None
    return round(int(found[1]) * 1024 / 1e6, 1) if found else None
