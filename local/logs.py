"""``logs``: the end of the log files, and what is added to them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from local.child import tail
from local.errors import LocalError
from local.paths import RunPaths
from local.state import read_state

FOLLOW_POLL_S = 0.2
CHUNK_BYTES = 256 * 1024


def log_files(paths: RunPaths, name: str | None) -> dict[str, Path]:
    """The logs of the last stack by process, or the one asked for. Raises LocalError naming what exists."""
    files = {path.stem: path for path in sorted(paths.logs.glob("*.log"))}
    state = read_state(paths.state)
    for known, one in (state.processes if state else {}).items():
        files[known] = Path(one.log)
    if name is None:
        return files
    if name not in files:
        raise LocalError(f"no log of {name!r}; there are: {', '.join(files) or 'none (nothing has run yet)'}")
    return {name: files[name]}


def logs(paths: RunPaths, name: str | None, lines: int, follow: bool) -> int:
    """Prints the last lines of one log or of all; then, when following, what comes, until Ctrl-C."""
    files = log_files(paths, name)
    for known, path in files.items():
        if name is None:
            print(f"--- {known}: {path}")
        print(tail(path, lines))
    if follow:
        try:
            for known, line in follow_files(files):
                print(line if name else f"{known}: {line}", flush=True)
        except KeyboardInterrupt:
            return 0
    return 0


def follow_files(files: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """Complete lines as they are appended, with the process that wrote them. Ends only with its consumer."""
    opened: dict[str, IO[bytes]] = {}
    partial: dict[str, bytes] = {}
    try:
        for known, path in files.items():
            if path.exists():
                opened[known] = path.open("rb")
                opened[known].seek(0, 2)
        while True:
            idle = True
            for known, file in opened.items():
                if chunk := file.read(CHUNK_BYTES):
                    idle = False
                    *complete, partial[known] = (partial.get(known, b"") + chunk).split(b"\n")
                    for line in complete:
                        yield known, line.decode(errors="replace")
            if idle:
                time.sleep(FOLLOW_POLL_S)
    finally:
        for file in opened.values():
            file.close()
