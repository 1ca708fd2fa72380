"""What can go wrong on a machine.

LocalError
├── MissingPrerequisite   something to install: what, why, and the command that mends it
├── PortBusy              another process listens where a part of the stack should
├── StartFailed           a part did not come up: its last log lines are in the message
└── NotRunning            the command needs a running stack
"""

from __future__ import annotations


class LocalError(Exception):
    """Base of all errors that the launcher reports in one line and exit status 1."""


class MissingPrerequisite(LocalError):
    """``what`` is missing, ``why`` it is needed, and the command that ``mends`` it: one line."""

    def __init__(self, what: str, why: str, mends: str) -> None:
        super().__init__(f"{what}: needed {why}. Mend it with: {mends}")


class PortBusy(LocalError):
    """A port of the stack is taken."""


class StartFailed(LocalError):
    """A part of the stack ended, or did not get ready in time."""


class NotRunning(LocalError):
    """There is no running stack."""
