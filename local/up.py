"""``up``: starts the stack and stays with it until Ctrl-C or ``down``; ``--detach`` leaves a launcher
behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from local import control
from local.child import Child, describe_exit, tail
from local.errors import LocalError
from local.paths import REPOSITORY, RunPaths
from local.processes import PAGE
from local.stack import Stack
from local.stack_config import StackConfig
from local.state import read_state
from local.status import describe

DETACH_TIMEOUT_S = 300.0
POLL_S = 0.1


class Interrupted(BaseException):
    """The user, or ``down``, asked the launcher to stop. Not an Exception: nothing swallows it."""


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """SIGINT, SIGTERM and SIGHUP raise Interrupted until the yielded function is called; then they are
    ignored, so that an impatient second Ctrl-C does not leave half a stack.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, _frame: FrameType | None) -> None:
        ignore()
        raise Interrupted(signal.Signals(number).name)

    def ignore() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield ignore
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(line: str) -> None:
    """Progress for the user. One write per line: processes stop in several threads."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def report_death(child: Child) -> None:
    """Said at once when a process dies."""
    print(
        f"{child.name} (pid {child.pid}) {describe_exit(child.exit_code or 0)}; its log ends with:",
        flush=True,
    )
    print("\n".join(f"    {line}" for line in child.tail(10).splitlines()), flush=True)


def require_down(paths: RunPaths) -> None:
    """Raises LocalError when a stack of this folder runs."""
    state = read_state(paths.state)
    if state is not None and state.runs():
        raise LocalError(
            f"already up (launcher pid {state.launcher.pid}). Look with: make status; end it with: make down"
        )


def print_stack(stack: Stack) -> None:
    """What runs where."""
    state = read_state(stack.paths.state)
    if state is not None:
        print(describe(state)[0], flush=True)
    for what, given in (("Kafka", stack.config.kafka_bootstrap), ("Redis", stack.config.redis_url)):
        if given:
            print(f"{what}: yours at {given}, left as it is", flush=True)
    print(f"up in {stack.started_in_s:.1f} s; logs in {stack.paths.logs}", flush=True)
    if PAGE in stack.config.services:
        print(f"live page: {stack.addresses.page}", flush=True)


def up(config: StackConfig) -> int:
    """Foreground. 0 when it was stopped and no process had died by itself."""
    require_down(RunPaths(config.root))
    stack = Stack(config, say, report_death)
    with control.listening(stack.paths.control) as listener, interruptible() as ignore_interrupts:
        try:
            stack.start()
            print_stack(stack)
            say("Ctrl-C or 'make down' stops it")
            control.serve(listener, stack, say)
        except Interrupted as asked:
            say(f"{asked}: stopping")
        finally:
            ignore_interrupts()
            stack.stop()
    return 1 if stack.deaths else 0


def up_detached(paths: RunPaths, arguments: list[str]) -> int:
    """Starts ``up`` with the same arguments as a process of its own, shows what it says, returns when it is
    up.
    """
    require_down(paths)
    log = paths.root / "launcher.log"
    paths.root.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "local", *arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, cwd=REPOSITORY, env=dict(os.environ),
        )  # fmt: skip
    deadline = time.monotonic() + DETACH_TIMEOUT_S
    shown = 0
    while time.monotonic() < deadline:
        ended = launcher.poll() is not None
        shown = _show_new(log, shown)
        state = read_state(paths.state)
        if state is not None and state.launcher.pid == launcher.pid and state.status == "up":
            print(f"launcher pid {launcher.pid} stays in the background; stop with: make down", flush=True)
            launcher.returncode = (
                0  # it is meant to outlive this process, which therefore does not wait for it
            )
            return 0
        if ended:
            return launcher.returncode or 1
        time.sleep(POLL_S)
    launcher.terminate()
    raise LocalError(f"not up within {DETACH_TIMEOUT_S:.0f} s; {log} ends with:\n{tail(log, 20)}")


def _show_new(log: Path, shown: int) -> int:
    with log.open("rb") as file:
        file.seek(shown)
        new = file.read()
    sys.stdout.write(new.decode(errors="replace"))
    sys.stdout.flush()
    return shown + len(new)
