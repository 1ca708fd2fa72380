"""Open-loop arrivals: when each request is meant to be sent, and the draws that decide by whom and what is
clicked, fixed before the first one is.

A slow answer delays nobody: latency counts from the intended time. Poisson arrivals; those that come only in
a surge are drawn too, each with the arrivals factor from which on it happens: so a scenario can be switched
while the plan is under way, and the usual arrivals stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadgen.scenarios import PEAK_ARRIVALS
from loadgen.world_random import Stream, generator

SHOWN = 10


@dataclass(frozen=True)
class Plan:
    """n possible requests: seconds since the start [n] (rising), the arrivals factor that each needs [n] (1:
    it comes anyway), and uniform draws in [0, 1): who comes [n, 3] (World.visitor), which of the shown items
    are clicked and after what delay [n, SHOWN] each."""

    at_s: NDArray[np.float64]
    needs: NDArray[np.float64]
    who_draws: NDArray[np.float64]
    click_draws: NDArray[np.float32]
    delay_draws: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.at_s)

    def comes(self, number: int, factor: float) -> bool:
        """Whether a request happens at a moment to which ``factor`` times the usual arrivals come."""
        return bool(self.needs[number] <= factor)

    def usual(self) -> Plan:
        """Those alone that come anyway."""
        come = self.needs <= 1
        return Plan(
            self.at_s[come],
            self.needs[come],
            self.who_draws[come],
            self.click_draws[come],
            self.delay_draws[come],
        )


def arrival_times(rng: np.random.Generator, rate: float, duration_s: float) -> NDArray[np.float64]:
    """Poisson arrivals in [0, duration_s)."""
    expected = rate * duration_s
    count = int(expected + 8 * np.sqrt(expected) + 16)
    times = np.cumsum(rng.exponential(1 / rate, count))
    return times[times < duration_s]


def plan(seed: int, rate: float, duration_s: float, run: int = 0) -> Plan:
    """The arrivals of one run; ``run`` numbers runs of one seed."""
    rng = generator(seed, Stream.ARRIVALS, run)
    usual = arrival_times(rng, rate, duration_s)
    surge = arrival_times(rng, rate * (PEAK_ARRIVALS - 1), duration_s)
    at_s = np.concatenate([usual, surge])
    needs = np.concatenate([np.ones(len(usual)), 1 + (PEAK_ARRIVALS - 1) * rng.random(len(surge))])
    order = np.argsort(at_s, kind="stable")
    draws = generator(seed, Stream.CLICKS, run)
    shape = (len(at_s), SHOWN)
    return Plan(
        at_s[order],
        needs[order],
        rng.random((len(at_s), 3)),
        draws.random(shape, np.float32),
        draws.random(shape, np.float32),
    )
