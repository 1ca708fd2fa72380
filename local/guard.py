"""``python guard.py <launcher pid> <nice value> <command> [arguments]``: becomes the command, at that
priority, and dies with the launcher.

The kernel kills this process when the launcher ends in whatever way (PR_SET_PDEATHSIG, which survives
exec), so that kill -9 of a launcher leaves nothing behind. A program of its own, and not a preexec_fn,
because running Python between fork and exec can deadlock in a launcher with threads. Elsewhere than on
Linux it only lowers the priority and execs.

Where the kernel shares the CPU out among sessions first (autogroup, usual on desktops), the nice value of a
process only counts against others of its session, and each child leads one of its own: what counts between
them is the session's.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
SESSION = Path("/proc/self/autogroup")


def main() -> None:
    """Sets the death signal and the priority, and replaces this process by the command."""
    launcher, nice, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != launcher:  # it died before the line above
            raise SystemExit(1)
    if nice:
        os.nice(nice)
        # Of a session of its own alone: else it would be the launcher's, and the user's shell with it.
        if os.getsid(0) == os.getpid():
            with contextlib.suppress(OSError), SESSION.open("w") as session:
                session.write(str(nice))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
