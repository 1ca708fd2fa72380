"""Whether Redis is worth a try: after failures in a row it is skipped for a while, then probed once."""

from __future__ import annotations


class Breaker:
    """Closed (all try) -> open (nobody tries) -> half open (one tries). Times in monotonic seconds."""

    def __init__(self, failures: int, pause_s: float) -> None:
        self._limit = failures
        self._pause_s = pause_s
        self._failures = 0
        self._retry_at_s = 0.0

    @property
    def open(self) -> bool:
        """Whether the last ``failures`` tries all failed."""
        return self._failures >= self._limit

    def allows(self, now_s: float) -> bool:
        """Whether to try now; one True opens the next pause, so that one request probes at a time."""
        if not self.open:
            return True
        if now_s < self._retry_at_s:
            return False
        self._retry_at_s = now_s + self._pause_s
        return True

    def succeeded(self) -> None:
        """A try worked: closed."""
        self._failures = 0

    def failed(self, now_s: float) -> bool:
        """A try failed; True when this one opened the breaker."""
        self._failures += 1
        self._retry_at_s = now_s + self._pause_s
        return self._failures == self._limit
