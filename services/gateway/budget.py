"""How the time that a request has is divided among its dependencies.

Each call gets a share of what is left when it starts, after a reserve for the gateway's own work: time that
an early call does not use goes to the later ones, and a late one never eats the answer's own time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shares:
    """Parts of the time left at the moment of the call, each in (0, 1]."""

    recall: float
    feature: float
    ranking: float

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if not 0 < share <= 1:
                raise ValueError(f"share of {name}={share}: above 0, at most 1")


class Budget:
    """The deadline of one request. Times are monotonic seconds."""

    def __init__(self, deadline: float, reserve_s: float) -> None:
        self._deadline = deadline
        self._reserve_s = reserve_s

    def left_s(self, now: float) -> float:
        """What dependencies may still use; 0 or less when nothing is left."""
        return self._deadline - self._reserve_s - now

    def timeout_s(self, share: float, now: float) -> float:
        """The timeout of a call that starts now."""
        return max(0.0, self.left_s(now) * share)
