"""A program that is told words a line, and answers each line by a line of numbers; its first line says what
it is. Peers are such programs, in an environment of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from local.paths import REPOSITORY


def foreign(
    name: str, python: str, arguments: Sequence[str], folder: Path, env: Mapping[str, str] | None = None
) -> Peer:
    """benchmarks/<name>.py by another interpreter, which sees nothing of the project."""
    script = str(Path(__file__).with_name(f"{name}.py"))
    return Peer(name, [python, script, *arguments], folder, {**(env or {}), "PYTHONPATH": ""})


class Peer:
    """A running program; what it says on stderr is in ``<name>.log``."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                cwd=REPOSITORY, env={**os.environ, **(env or {})},
            )  # fmt: skip
        self.version = self._line()[0]

    def _line(self) -> list[str]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline().split()
        if not line:
            said = self._log.read_text(errors="replace").strip()[-2000:]
            raise SystemExit(f"{self._log.stem} failed:\n{said}")
        return line

    def ask(self, *words: object) -> list[float]:
        """Its numbers."""
        assert self._child.stdin is not None
        self._child.stdin.write(" ".join(map(str, words)) + "\n")
        self._child.stdin.flush()
        return [float(one) for one in self._line()]

    def close(self) -> None:
        """Ends the process."""
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        self._child.wait(30)
        self._child.stdout.close()
