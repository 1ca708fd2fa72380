"""What can be asked of a launcher while it stays with its stack: over a socket in the folder of the run.

Only the launcher can start and stop processes of its stack: they are its children, and die with it. So a
command that replaces them asks it to. One request at a time, a JSON line: ``{"do": NAME, ...}``. Answers are
JSON lines too: ``say`` (progress), then ``result`` or ``error``. The socket is the user's alone.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.errors import LocalError
from local.roll.replace import replace_process

if TYPE_CHECKING:
    from local.stack import Stack

MAX_LINE_BYTES = 64 * 1024
# For the launcher to take a request; what it does then takes its time.
CONNECT_S = 5.0
Say = Callable[[str], None]


def _environment(stack: Stack, request: dict[str, Any], _say: Say) -> object:
    return stack.own_environment(str(request["module"]))


def _services(stack: Stack, _request: dict[str, Any], _say: Say) -> object:
    return list(stack.config.services)


def _replace(stack: Stack, request: dict[str, Any], say: Say) -> object:
    return replace_process(stack, str(request["service"]), say).said()


ACTIONS: dict[str, Callable[[Stack, dict[str, Any], Say], object]] = {
    "environment": _environment,
    "services": _services,
    "replace": _replace,
}


@contextmanager
def listening(where: Path) -> Iterator[socket.socket]:
    """The socket, from before the stack is up: who asks early waits."""
    where.parent.mkdir(parents=True, exist_ok=True)
    where.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, _short(where) as path:
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen(4)
        try:
            yield listener
        finally:
            where.unlink(missing_ok=True)


def serve(listener: socket.socket, stack: Stack, say: Say) -> None:
    """Takes requests until a signal raises; on the thread that owns the stack."""
    while True:
        caller, _ = listener.accept()
        with caller:
            _answer(stack, caller, say)


def _answer(stack: Stack, caller: socket.socket, say: Say) -> None:
    def tell(line: dict[str, object]) -> None:
        # Who has gone is not told; what was asked for is done to its end.
        with suppress(OSError):
            caller.sendall(json.dumps(line).encode() + b"\n")

    def progress(text: str) -> None:
        say(text)
        tell({"say": text})

    caller.settimeout(CONNECT_S)
    try:
        with caller.makefile("rb") as lines:
            request = json.loads(lines.readline(MAX_LINE_BYTES))
        action = ACTIONS[request["do"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        tell({"error": f"not a request of this launcher: {error!r}"})
        return
    try:
        tell({"result": action(stack, request, progress)})
    except LocalError as error:
        say(str(error))
        tell({"error": str(error)})


def ask(where: Path, do: str, say: Say = lambda _text: None, **what: object) -> Any:
    """The launcher's answer to a request; progress goes to ``say``. Raises LocalError: nobody listens, the
    launcher went away, or what it says went wrong."""
    try:
        with socket.socket(socket.AF_UNIX) as launcher, _short(where) as path:
            launcher.settimeout(CONNECT_S)
            launcher.connect(path)
            launcher.sendall(json.dumps({"do": do, **what}).encode() + b"\n")
            launcher.settimeout(None)
            with launcher.makefile("rb") as lines:
                for line in lines:
                    said = json.loads(line)
                    if "say" in said:
                        say(said["say"])
                    elif "error" in said:
                        raise LocalError(said["error"])
                    else:
                        return said["result"]
    except OSError as error:
        raise LocalError(
            f"no launcher listens at {where} ({error.strerror or error}): start a stack with make up"
        ) from error
    raise LocalError("the launcher went away")


@contextmanager
def _short(where: Path) -> Iterator[str]:
    """A path of a socket that fits into the 107 bytes that the kernel allows, however deep its folder is."""
    folder = os.open(where.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{where.name}"
    finally:
        os.close(folder)
