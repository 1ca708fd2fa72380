"""``python -m k8s.sizing``: CPU and memory per process, from what a load on one machine has measured.

CPU is that of out/demo-days.json (`make demo-days`: four arms, full models every two minutes), memory that
of out/demo.json (`make demo`: one arm). Milliseconds a request are cores at a thousand requests a second, an
upper bound: what a process takes when nothing comes is in them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OUT = Path("out")
HEAD = ("process", "CPU, ms a request", "peak memory, MB")


def table(days: Mapping[str, Any], demo: Mapping[str, Any]) -> str:
    """Markdown; processes in falling order of CPU. KeyError names what a file lacks."""
    requests = sum(arm["requests"] for arm in days["arms"].values())
    used: Mapping[str, float] = days["cpu_s"]
    lines = [HEAD, ("---",) * len(HEAD)]
    for name in sorted(used, key=lambda name: -used[name]):
        ms = 1000 * used[name] / requests
        memory = demo["peak_memory_mb"].get(name)
        lines.append((name, f"{ms:.1f}", "" if memory is None else f"{memory:.0f}"))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Exit code 1 when a file is not there or lacks a figure, said in one line."""
    found = []
    for name, command in (("demo-days.json", "make demo-days"), ("demo.json", "make demo")):
        try:
            found.append(json.loads((OUT / name).read_text()))
        except (OSError, ValueError) as error:
            print(f"sizing: {OUT / name}: {error}. Mend it with: {command}", file=sys.stderr)
            return 1
    try:
        print(table(*found))
    except KeyError as error:
        print(f"sizing: {error} is in neither file: they are of another version", file=sys.stderr)
        return 1
    rate = found[0]["rate"]
    print(
        f"\nCPU at {rate:g} requests a second over four arms, memory at {found[1]['offered_rps']:g} over one."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
