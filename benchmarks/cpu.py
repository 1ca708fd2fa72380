"""CPU of processes by their own clocks: that of /proc ticks every 10 ms."""

from __future__ import annotations

import time
from collections.abc import Mapping


def cpu_s(pid: int) -> float:
    """Seconds that a process has used so far (clock_getcpuclockid)."""
    return time.clock_gettime(~pid << 3 | 2)


def cpu_of(pids: Mapping[str, int]) -> dict[str, float]:
    """By name, seconds so far; ``client`` is this process."""
    return {**{name: cpu_s(pid) for name, pid in pids.items()}, "client": time.process_time()}
