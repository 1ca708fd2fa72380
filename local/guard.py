"""``python guard.py <launcher pid> <command> [arguments]``: becomes the command, and dies with the launcher.

The kernel kills this process when the launcher ends in whatever way (PR_SET_PDEATHSIG, which survives
exec), so that kill -9 of a launcher leaves nothing behind. A program of its own, and not a preexec_fn,
because running Python between fork and exec can deadlock in a launcher with threads. Elsewhere than on
Linux it only execs.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Sets the death signal and replaces this process by the command."""
    launcher, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != launcher:  # it died before the line above
            raise SystemExit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
