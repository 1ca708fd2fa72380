"""``down``: asks the launcher to stop its stack; clears up behind one that has died."""

from __future__ import annotations

import signal
import time
from contextlib import suppress

import psutil

from local.paths import RunPaths
from local.processes import SERVICE_GRACE_S, stop_order
from local.state import StackState, read_state, write_state

LAUNCHER_GRACE_S = 120.0
POLL_S = 0.1


def down(paths: RunPaths) -> int:
    """0 when nothing of the stack runs any more, also when nothing did."""
    state = read_state(paths.state)
    if state is None or not state.runs():
        print("nothing is running")
        return 0
    launcher = state.launcher.process()
    if launcher is not None:
        print(f"stopping the stack of launcher {launcher.pid}")
        with suppress(psutil.NoSuchProcess):
            launcher.send_signal(signal.SIGTERM)
        _wait_gone([launcher], LAUNCHER_GRACE_S)
    state = read_state(paths.state) or state
    _stop_orphans(state)
    if state.runs():
        print(f"still running: {', '.join(state.living()) or 'the launcher'}")
        return 1
    state.status = "down"
    state.processes = {}
    write_state(paths.state, state)
    print("down: no process left")
    return 0


def _stop_orphans(state: StackState) -> None:
    """What a launcher that was killed has left, where the kernel did not end it."""
    for group in stop_order(dict.fromkeys(state.living())):
        processes = [found for name in group if (found := state.processes[name].identity().process())]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in _wait_gone(processes, SERVICE_GRACE_S):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _wait_gone(processes, SERVICE_GRACE_S)


def _wait_gone(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """The processes that still run after the time."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(POLL_S)
